#include "cli/largest_batch.h"

#include <algorithm>

namespace tandem {

LargestBatch find_largest_batch(const std::function<bool(int64_t rows)>& fits, int64_t limit) {
  TORCH_CHECK(limit >= 1, "find_largest_batch: limit ", limit, ", expected at least 1");
  LargestBatch found;
  int64_t below = limit + 1;  // what does not fit, or is not to be tried
  const auto attempt = [&](int64_t rows) {
    if (fits(rows)) {
      found.rows = rows;
      return true;
    }
    found.did_not_fit.push_back(rows);
    below = rows;
    return false;
  };
  int64_t rows = 1;
  while (attempt(rows) && rows < limit) rows = std::min(2 * rows, limit);
  constexpr int64_t kShare = 32;  // of the batch
  while (found.rows > 0 && below - found.rows > std::max<int64_t>(1, found.rows / kShare))
    attempt(found.rows + (below - found.rows) / 2);
  return found;
}

int64_t rows_in_memory(const LanguageModel& model, int64_t length, torch::Dtype dtype,
                       int64_t memory_bytes) {
  return memory_bytes / std::max<int64_t>(1, model.state_bytes(length, dtype).total());
}

}  // namespace tandem
