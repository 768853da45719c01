#pragma once
#include <cstdint>
#include <functional>
#include <vector>

#include "nn/language_model.h"

namespace tandem {

struct LargestBatch {
  int64_t rows = 0;                   // 0: not even one fits
  std::vector<int64_t> did_not_fit;   // that were tried, in that order
};

/// Tries 1, 2, 4, ... rows until a batch does not fit or `limit` (>= 1) is reached, then the middle
/// between the largest that fits and the smallest that does not, until these are no more than 3 %
/// apart: a try may take minutes, and a batch's time hardly depends on the last rows.
LargestBatch find_largest_batch(const std::function<bool(int64_t rows)>& fits, int64_t limit);

/// Rows of `length` tokens whose state takes at most `memory_bytes`, with keys and values held in
/// `dtype`.
int64_t rows_in_memory(const LanguageModel& model, int64_t length, torch::Dtype dtype,
                       int64_t memory_bytes);

}  // namespace tandem
