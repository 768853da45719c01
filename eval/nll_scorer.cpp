#include "eval/nll_scorer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "nn/generate.h"

namespace tandem {
namespace {

constexpr int64_t kTokensRead = 1 << 16;  // of a file at once

void check_ids(const Row& row, int64_t vocab_size, const TokenFile& file) {
  for (const auto* ids : {&row.tokens, &row.targets}) {
    const int64_t most = *std::max_element(ids->begin(), ids->end());
    if (most >= vocab_size) {
      throw bad_file(file.prefix(),
                     fmt::format("holds token {}, the model's vocabulary ends at {}; was it made "
                                 "with the model's tokenizer?",
                                 most, vocab_size - 1));
    }
  }
}

bool has_target(const std::vector<Row>& rows) {
  return std::any_of(rows.begin(), rows.end(), [](const Row& row) {
    return std::any_of(row.targets.begin(), row.targets.end(),
                       [](int64_t target) { return target != kIgnored; });
  });
}

/// `nll` [B, T], undefined where nothing was scored.
void give(const std::vector<Row>& rows, int64_t begin, const Tensor& nll,
          const OnScoredPart& on_part) {
  const Tensor values = nll.defined() ? nll.to(torch::kCPU, torch::kFloat64).contiguous() : nll;
  for (size_t b = 0; b < rows.size(); ++b) {
    const size_t n = rows[b].tokens.size();
    std::span<const double> of_row;
    if (values.defined()) of_row = {values.const_data_ptr<double>() + b * n, n};
    on_part({.row = b, .begin = begin, .columns = rows[b], .nll = of_row});
  }
}

/// Rows as [B, n] int64 on the device; padding in front, which only `tokens` may hold, is kPadding.
Tensor ids_of(const std::vector<Row>& rows, std::vector<int64_t> Row::*ids, int64_t begin,
              int64_t front, torch::Device device) {
  const auto n = std::ssize(rows.front().tokens);
  const Tensor all = torch::empty({std::ssize(rows), n}, torch::kInt64);
  auto* to = all.mutable_data_ptr<int64_t>();
  for (const Row& row : rows) {
    std::copy((row.*ids).begin(), (row.*ids).end(), to);
    if (ids == &Row::tokens) std::fill_n(to, std::clamp<int64_t>(front - begin, 0, n), kPadding);
    to += n;
  }
  return all.to(device);
}

}  // namespace

ModelScorer::ModelScorer(LanguageModel& model, torch::Device device, int64_t chunk,
                         std::optional<torch::Dtype> cache_dtype)
    : model_(model), device_(device), chunk_(chunk), cache_dtype_(cache_dtype) {
  TORCH_CHECK(chunk >= 0, "ModelScorer: chunk = ", chunk, ", expected at least 0");
}

void ModelScorer::score(std::span<const NllSequence> rows, const OnScoredPart& on_part) {
  if (rows.empty()) return;
  const torch::NoGradGuard no_grad;
  chunk_ == 0 ? score_whole(rows, on_part) : score_in_pieces(rows, on_part);
}

void ModelScorer::score_whole(std::span<const NllSequence> sequences, const OnScoredPart& on_part) {
  std::vector<Row> rows;
  for (const NllSequence& sequence : sequences) {
    rows.push_back(sequence.row(model_.packing()));
    check_ids(rows.back(), model_.vocab_size(), *sequence.file);
  }
  pad_rows(rows);
  const Tensor nll =
      has_target(rows) ? model_.loss(make_batch(rows, device_), {}).nll : Tensor();  // [B, T]
  give(rows, 0, nll, on_part);
}

void ModelScorer::score_in_pieces(std::span<const NllSequence> sequences,
                                  const OnScoredPart& on_part) {
  const Packing packing = model_.packing();
  const int64_t front = packing.padding_to_score(), batch = std::ssize(sequences);
  int64_t longest = 0, scored = std::numeric_limits<int64_t>::max();
  std::vector<int64_t> lengths;  // columns up to each row's last token; nothing behind it is fed
  for (const NllSequence& sequence : sequences) {
    TORCH_CHECK(!sequence.mask_documents, "scoring in pieces: documents are masked, expected not");
    lengths.push_back(front + sequence.inputs());
    longest = std::max(longest, lengths.back());
    scored = std::min(scored, sequence.first_scored(packing));
  }
  scored = std::min(scored, longest);
  const bool full = front == 0 && std::all_of(lengths.begin(), lengths.end(),
                                              [&](int64_t n) { return n == longest; });
  const Tensor all_lengths =
      full ? Tensor() : torch::tensor(lengths, torch::kInt64).to(device_);  // undefined: T each
  const auto state = inference_state(model_, batch, longest, cache_dtype_);
  for (int64_t begin = 0; begin < longest;) {
    const int64_t n = std::min(chunk_, (begin < scored ? scored : longest) - begin);
    std::vector<Row> rows;
    for (const NllSequence& sequence : sequences) {
      rows.push_back(sequence.part(begin, n, packing));
      check_ids(rows.back(), model_.vocab_size(), *sequence.file);
    }
    const Tensor tokens = ids_of(rows, &Row::tokens, begin, front, device_),
                 own = full ? Tensor() : (all_lengths - begin).clamp(0, n);
    Tensor nll;  // [B, n]
    if (begin < scored) {
      model_.extend(tokens, own, *state, Want::kNothing);
    } else {
      nll = model_.extend_nll(tokens, ids_of(rows, &Row::targets, begin, front, device_), own,
                              *state);
    }
    give(rows, begin, nll, on_part);
    begin += n;
  }
  state_bytes_ = std::max(state_bytes_, state->bytes());
}

UnigramScorer::UnigramScorer(std::vector<double> nll, const Packing& packing)
    : nll_(std::move(nll)), packing_(packing) {}

void UnigramScorer::score(std::span<const NllSequence> rows, const OnScoredPart& on_part) {
  for (size_t b = 0; b < rows.size(); ++b) {
    const bool whole = rows[b].mask_documents;
    const int64_t columns = rows[b].columns(packing_);
    for (int64_t begin = 0; begin < columns;) {
      const int64_t n = whole ? columns : std::min(kTokensRead, columns - begin);
      const Row row = whole ? rows[b].row(packing_) : rows[b].part(begin, n, packing_);
      check_ids(row, std::ssize(nll_), *rows[b].file);
      std::vector<double> nll;
      for (const int64_t target : row.targets)
        nll.push_back(target == kIgnored ? NAN : nll_[static_cast<size_t>(target)]);
      on_part({.row = b, .begin = begin, .columns = row, .nll = nll});
      begin += n;
    }
  }
}

std::vector<double> unigram_nll(const TokenFile& file, int64_t vocab_size) {
  std::vector<double> counts(static_cast<size_t>(vocab_size), 1.0);
  std::vector<int64_t> ids;
  for (int64_t begin = 0; begin < file.tokens(); begin += kTokensRead) {
    ids.resize(static_cast<size_t>(std::min(kTokensRead, file.tokens() - begin)));
    file.read(begin, ids);
    for (const int64_t id : ids) {
      if (id >= vocab_size) {
        throw bad_file(
            file.prefix(),
            fmt::format("holds token {}, the model's vocabulary ends at {}", id, vocab_size - 1));
      }
      ++counts[static_cast<size_t>(id)];
    }
  }
  const double total = static_cast<double>(file.tokens() + vocab_size);
  for (double& count : counts) count = -std::log(count / total);
  return counts;
}

}  // namespace tandem
