#include "nn/score.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "nn/generate.h"
#include "nn/sequence_parallel.h"

namespace tandem {
namespace {

// NLL of one batch, [B, T] on the CPU; NaN where not scored.
Tensor batch_nll(LanguageModel& model, const Batch& batch, int64_t chunk,
                 std::optional<torch::Dtype> cache_dtype, const ForwardContext& context = {}) {
  if (chunk == 0) {
    const Tensor nll = model.loss(batch, context).nll;
    return (is_divided(context) ? gather_columns(nll, *context.sequence) : nll).to(torch::kCPU);
  }
  const int64_t n_tokens = batch.tokens.size(1);
  Tensor tokens = batch.tokens, lengths;  // lengths undefined: rows without padding
  if (batch.segment.defined()) {
    const Tensor real = batch.segment.ge(0);                                       // [B, T]
    const Tensor counts = torch::arange(1, n_tokens + 1, batch.tokens.options());  // [T]
    lengths = (real * counts).amax(1);  // up to the last token; nothing behind it is read
    const Tensor in_front = real.cumsum(1).eq(0) & counts.le(lengths.unsqueeze(1));
    tokens = tokens.masked_fill(in_front, kPadding);
  }
  const auto state = inference_state(model, batch.tokens.size(0), n_tokens, cache_dtype);
  Tensors pieces;
  for (int64_t begin = 0; begin < n_tokens; begin += chunk) {
    const int64_t n = std::min(chunk, n_tokens - begin);
    const Tensor nll =
        model.extend_nll(tokens.narrow(1, begin, n), batch.targets.narrow(1, begin, n),
                         lengths.defined() ? (lengths - begin).clamp(0, n) : lengths, *state);
    pieces.push_back(nll.to(torch::kCPU));
  }
  return torch::cat(pieces, 1);
}

void check_one_document(const std::vector<Row>& rows) {
  for (const Row& row : rows) {
    int32_t document = -1;  // the row's, once it has begun
    bool ended = false;
    for (const int32_t segment : row.segment) {
      if (segment < 0) {
        ended = document >= 0;
        continue;
      }
      TORCH_CHECK(document < 0 || segment == document, "scoring in pieces: a row holds documents ",
                  document, " and ", segment, ", expected one");
      TORCH_CHECK(!ended,
                  "scoring in pieces: a row holds padding between its tokens, expected in front of "
                  "them and behind them only");
      document = segment;
    }
  }
}

}  // namespace

ScoreResult& ScoreResult::operator+=(const ScoreResult& other) {
  nll_sum += other.nll_sum;
  weight += other.weight;
  const size_t columns = std::max(nll_by_position.size(), other.nll_by_position.size());
  nll_by_position.resize(columns);
  count_by_position.resize(columns);
  for (size_t t = 0; t < other.nll_by_position.size(); ++t) {
    nll_by_position[t] += other.nll_by_position[t];
    count_by_position[t] += other.count_by_position[t];
  }
  return *this;
}

int64_t longest_to_score(const Packing& packing) {
  return packing.max_length / packing.multiple * packing.multiple - packing.padding_to_score();
}

ScoreResult by_block_position(const ScoreResult& result, int64_t block_length) {
  TORCH_CHECK(block_length >= 1, "by_block_position: block_length = ", block_length,
              ", expected at least 1");
  const auto n = static_cast<size_t>(block_length);
  ScoreResult sums{.nll_sum = result.nll_sum,
                   .weight = result.weight,
                   .nll_by_position = std::vector<double>(n),
                   .count_by_position = std::vector<double>(n)};
  for (size_t t = 0; t < result.nll_by_position.size(); ++t) {
    sums.nll_by_position[(t + 1) % n] += result.nll_by_position[t];
    sums.count_by_position[(t + 1) % n] += result.count_by_position[t];
  }
  return sums;
}

std::vector<double> means(const ScoreResult& result) {
  std::vector<double> list;
  for (size_t t = 0; t < result.nll_by_position.size(); ++t) {
    const double count = result.count_by_position[t];
    list.push_back(count > 0 ? result.nll_by_position[t] / count
                             : std::numeric_limits<double>::quiet_NaN());
  }
  return list;
}

ScoreResult score_rows(LanguageModel& model, std::span<const Row> rows, torch::Device device,
                       int64_t batch, int64_t chunk, std::optional<torch::Dtype> cache_dtype,
                       const ForwardContext& context) {
  TORCH_CHECK(batch >= 1 && chunk >= 0, "score_rows: batch = ", batch, ", chunk = ", chunk,
              ", expected at least 1 and 0");
  const torch::NoGradGuard no_grad;
  ScoreResult result;
  for (size_t begin = 0; begin < rows.size(); begin += static_cast<size_t>(batch)) {
    const auto part =
        rows.subspan(begin, std::min(static_cast<size_t>(batch), rows.size() - begin));
    std::vector<Row> padded(part.begin(), part.end());
    pad_rows(padded);
    if (chunk > 0) check_one_document(padded);
    const Batch own = make_batch(padded, device, part_of(context.sequence));
    const Tensor nll = batch_nll(model, own, chunk, cache_dtype, context)
                           .to(torch::kFloat64)
                           .contiguous();
    const double* values = nll.const_data_ptr<double>();
    const size_t columns = padded.front().targets.size();
    ScoreResult of_batch;
    of_batch.nll_by_position.resize(columns);
    of_batch.count_by_position.resize(columns);
    for (size_t b = 0; b < padded.size(); ++b) {
      for (size_t t = 0; t < columns; ++t) {
        // the host's targets decide, so that the NaN of a broken model is not taken for "not
        // scored"
        const Row& row = padded[b];
        const double weight = row.weights.empty() ? 1.0 : row.weights[t];
        if (row.targets[t] == kIgnored || weight == 0) continue;
        of_batch.nll_by_position[t] += weight * values[b * columns + t];
        of_batch.count_by_position[t] += weight;
      }
    }
    const auto sum = [](const std::vector<double>& v) {
      return std::accumulate(v.begin(), v.end(), 0.0);
    };
    of_batch.nll_sum = sum(of_batch.nll_by_position);
    of_batch.weight = sum(of_batch.count_by_position);
    result += of_batch;
  }
  return result;
}

std::vector<std::vector<double>> log_probs(LanguageModel& model,
                                           std::span<const std::vector<int64_t>> sequences,
                                           torch::Device device, int64_t batch) {
  TORCH_CHECK(batch >= 1, "log_probs: batch = ", batch, ", expected at least 1");
  const torch::NoGradGuard no_grad;
  std::vector<size_t> order(sequences.size());  // by length, so that a batch holds little padding
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return sequences[a].size() > sequences[b].size(); });
  std::vector<std::vector<double>> result(sequences.size());
  for (size_t begin = 0; begin < order.size(); begin += static_cast<size_t>(batch)) {
    const size_t end = std::min(begin + static_cast<size_t>(batch), order.size());
    std::vector<Row> rows;
    for (size_t i = begin; i < end; ++i)
      rows.push_back(row_of_sequence(sequences[order[i]], model.packing()));
    pad_rows(rows);
    const Tensor nll =
        batch_nll(model, make_batch(rows, device), 0, {}).to(torch::kFloat32).contiguous();
    const size_t columns = static_cast<size_t>(nll.size(1));
    for (size_t i = begin; i < end; ++i) {
      const std::span<const float> row(nll.const_data_ptr<float>() + (i - begin) * columns,
                                       columns);
      result[order[i]] = log_probs_of_sequence(
          row, static_cast<int64_t>(sequences[order[i]].size()), model.packing());
    }
  }
  return result;
}

}  // namespace tandem
