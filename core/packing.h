#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace tandem {

/// How a model wants its rows. A model says it (LanguageModel::packing); training, score, eval and generate all lay rows out by it.
struct Packing {
  int64_t multiple = 1;         // a row's length is a multiple of this
  int64_t unscored_prefix = 0;  // the first tokens of a sequence that the model gives no probability, beyond the very first
};

/// One row of a batch on the host: column t feeds tokens[t] and scores targets[t] = the token after it.
struct Row {
  std::vector<int64_t> tokens;
  std::vector<int64_t> targets;  // kIgnored = not scored
  std::vector<int32_t> segment;  // document number within the row; -1 = padding
  int64_t sample = 0;            // global sample number
  std::vector<float> weights = {};  // of each target in the loss, >= 0; empty = all 1
};
inline constexpr int64_t kIgnored = -100;

/// Lays one sequence of n tokens out as a row that scores tokens 1 .. n-1 given what is before them; the row has n - 1 columns,
/// padded at the end to `packing.multiple` with token 0 and segment -1. n = 1 gives one column and no target.
Row row_of_sequence(std::span<const int64_t> tokens, const Packing& packing);
/// Back again: log p of each of the n tokens from the row's NLL (nll[t] belongs to token t + 1); NaN where not scored.
std::vector<double> log_probs_of_sequence(std::span<const float> nll, int64_t n);

/// Makes rows equally long by padding at the end with token 0, ignored targets, segment -1 and, where a row has weights, weight 0.
void pad_rows(std::vector<Row>& rows);

}  // namespace tandem
