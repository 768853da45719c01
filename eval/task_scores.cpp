#include "eval/task_scores.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "nn/batch.h"
#include "nn/generate.h"

namespace tandem {
namespace {

using Group = std::vector<const TokenRequest*>;

// A row of logits takes the whole vocabulary, so longer continuations come in pieces.
constexpr int64_t kPiece = 64;

int64_t ids_of(const TokenRequest& request) {
  return std::ssize(request.context) + std::ssize(request.continuation);
}

// Whether a row gives the first id of the continuation a probability.
bool fits_a_row(const TokenRequest& request, const Packing& packing) {
  return packing.pad_documents || std::ssize(request.context) > packing.unscored_prefix;
}

int64_t padding_of(const TokenRequest& request, const Packing& packing) {
  if (packing.pad_documents) return packing.padding_to_score();
  return std::max<int64_t>(0, packing.unscored_prefix + 1 - std::ssize(request.context));
}

std::vector<RequestScore> score_as_rows(LanguageModel& model, const Group& group,
                                        torch::Device device) {
  std::vector<Row> rows;
  for (const TokenRequest* request : group) {
    std::vector<int64_t> ids = request->context;
    ids.insert(ids.end(), request->continuation.begin(), request->continuation.end());
    rows.push_back(row_of_sequence(ids, model.packing(), std::ssize(request->context) - 1));
  }
  pad_rows(rows);
  const Tensor nll =
      model.loss(make_batch(rows, device), {}).nll.to(torch::kCPU, torch::kFloat64).contiguous();
  const double* value = nll.const_data_ptr<double>();
  std::vector<RequestScore> scores(group.size());
  for (size_t b = 0; b < rows.size(); ++b) {
    for (size_t t = 0; t < rows[b].targets.size(); ++t, ++value) {
      if (rows[b].targets[t] != kIgnored) scores[b].log_prob -= *value;
    }
  }
  return scores;
}

// Ids of different numbers as [B, T] int64, filled up with 0 behind, and how many each row has.
struct Ragged {
  Tensor ids, lengths;
};
Ragged ragged(const std::vector<std::vector<int64_t>>& rows, torch::Device device) {
  size_t longest = 0;
  for (const auto& row : rows) longest = std::max(longest, row.size());
  std::vector<int64_t> flat, lengths;
  for (const auto& row : rows) {
    flat.insert(flat.end(), row.begin(), row.end());
    flat.resize(lengths.size() * longest + longest, 0);
    lengths.push_back(std::ssize(row));
  }
  const auto shape = {std::ssize(rows), static_cast<int64_t>(longest)};
  return {torch::tensor(flat, torch::kInt64).view(shape).to(device),
          torch::tensor(lengths, torch::kInt64).to(device)};
}

// All but the last id of each context, then the rest in one piece, or of a lone row in several.
std::vector<RequestScore> score_with_state(LanguageModel& model, const Group& group,
                                           torch::Device device, bool greedy) {
  std::vector<std::vector<int64_t>> before, inputs, targets;
  int64_t longest = 0;
  for (const TokenRequest* request : group) {
    const auto& context = request->context;
    auto& first =
        before.emplace_back(static_cast<size_t>(padding_of(*request, model.packing())), kPadding);
    first.insert(first.end(), context.begin(), context.end() - 1);
    auto& input = inputs.emplace_back(1, context.back());
    input.insert(input.end(), request->continuation.begin(), request->continuation.end() - 1);
    targets.push_back(request->continuation);
    longest = std::max(longest, std::ssize(first) + std::ssize(input));
  }
  const auto state = inference_state(model, std::ssize(group), longest);
  const Ragged prefix = ragged(before, device), input = ragged(inputs, device);
  const Tensor wanted = ragged(targets, device).ids;  // [B, T]
  if (prefix.ids.size(1) > 0) model.extend(prefix.ids, prefix.lengths, *state, Want::kNothing);
  const int64_t columns = input.ids.size(1), piece = group.size() == 1 ? kPiece : columns;
  Tensor log_prob = torch::zeros({std::ssize(group)}, torch::kFloat64);
  Tensor all_likeliest = torch::ones({std::ssize(group)}, torch::kBool);
  for (int64_t begin = 0; begin < columns; begin += piece) {
    const int64_t n = std::min(piece, columns - begin);
    const Tensor ids = input.ids.narrow(1, begin, n), next = wanted.narrow(1, begin, n);
    const Tensor lengths = (input.lengths - begin).clamp(0, n);
    const Tensor there = torch::arange(n, lengths.options()) < lengths.unsqueeze(1);  // [B, n]
    Tensor of_ids;
    if (greedy) {
      const Tensor logits = model.extend(ids, lengths, *state, Want::kAll);  // [B, n, V]
      of_ids = logits.log_softmax(-1).gather(2, next.unsqueeze(2)).squeeze(2);
      const Tensor likeliest = logits.argmax(-1).eq(next).logical_or(there.logical_not());
      all_likeliest = all_likeliest.logical_and(likeliest.all(1).to(torch::kCPU));
    } else {
      of_ids =
          -model.extend_nll(ids, next.masked_fill(there.logical_not(), kIgnored), lengths, *state);
    }
    const Tensor of_rows = of_ids.to(torch::kFloat64).masked_fill(there.logical_not(), 0).sum(1);
    log_prob = log_prob + of_rows.to(torch::kCPU);
  }
  std::vector<RequestScore> scores;
  for (int64_t b = 0; b < std::ssize(group); ++b)
    scores.push_back({log_prob[b].item<double>(), greedy && all_likeliest[b].item<bool>()});
  return scores;
}

}  // namespace

int64_t longest_context(const Packing& packing) {
  if (packing.max_length == 0) return 0;
  return packing.max_length / packing.multiple * packing.multiple - (packing.multiple - 1);
}

std::vector<RequestScore> score_requests(LanguageModel& model,
                                         std::span<const TokenRequest> requests,
                                         torch::Device device, int64_t batch, bool greedy,
                                         const std::function<void(int64_t)>& progress) {
  TORCH_CHECK(batch >= 1, "score_requests: batch = ", batch, ", expected at least 1");
  const torch::NoGradGuard no_grad;
  const Packing packing = model.packing();
  // What may share a batch: rows; short continuations through a state; each long one alone.
  const auto kind = [&](size_t i) {
    if (!greedy && fits_a_row(requests[i], packing)) return 0;
    return std::ssize(requests[i].continuation) <= kPiece ? 1 : 2;
  };
  std::vector<size_t> order(requests.size());  // by length, so that a batch holds little padding
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return std::pair(kind(a), -ids_of(requests[a])) < std::pair(kind(b), -ids_of(requests[b]));
  });
  std::vector<RequestScore> result(requests.size());
  for (size_t begin = 0; begin < order.size();) {
    const int of_first = kind(order[begin]);
    const auto most = static_cast<size_t>(of_first == 2 ? 1 : batch);
    Group group;
    while (group.size() < most && begin + group.size() < order.size() &&
           kind(order[begin + group.size()]) == of_first)
      group.push_back(&requests[order[begin + group.size()]]);
    const auto scores = of_first == 0 ? score_as_rows(model, group, device)
                                      : score_with_state(model, group, device, greedy);
    for (const RequestScore& score : scores) {
      TORCH_CHECK(!std::isnan(score.log_prob),
                  "score_requests: the model's log-probability is NaN");
      result[order[begin++]] = score;
    }
    if (progress) progress(static_cast<int64_t>(begin));
  }
  return result;
}

}  // namespace tandem
