#include "cli/bench_inference.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/error.h"
#include "core/log.h"
#include "nn/device_info.h"
#include "nn/peak_memory.h"

namespace tandem {
namespace {

// Rows that are tried at most: some kernels lay rows out along a CUDA grid's y or z, which end
// here.
constexpr int64_t kMostTriedRows = 65'535;

}  // namespace

LargestBatch largest_batch(const Workload& workload, const std::string& name,
                           const LanguageModel& model, const BenchLength& tokens,
                           const BenchOptions& o, torch::Device device) {
  const auto rows_in = [&](int64_t bytes) {
    return rows_in_memory(model, tokens.total(), cache_dtype_of(o), bytes);
  };
  if (o.memory_bytes > 0) {
    LargestBatch found{rows_in(o.memory_bytes), {}};
    if (found.rows > 0) return found;
    const int64_t row = model.state_bytes(tokens.total(), cache_dtype_of(o)).total();
    throw bad_usage(fmt::format("--memory {} holds no row of {}, whose state takes {} at {} tokens",
                                human_bytes(static_cast<double>(o.memory_bytes)), name,
                                human_bytes(static_cast<double>(row)),
                                with_commas(tokens.total())));
  }
  const auto fits = [&](int64_t rows) {
    bool enough = true;
    try {
      workload(rows);
    } catch (const c10::Error& error) {
      if (!is_out_of_memory(error)) throw;
      enough = false;
    }
    release_free_memory(device);
    log_line(fmt::format("  {} rows {}", with_commas(rows), enough ? "fit" : "do not fit"));
    return enough;
  };
  // More than that fills the device with state alone.
  const int64_t limit = std::clamp<int64_t>(rows_in(static_cast<int64_t>(memory_use(device).limit)),
                                            1, kMostTriedRows);
  LargestBatch found = find_largest_batch(fits, limit);
  if (found.rows == 0) {
    throw bad_usage(fmt::format("{} does not hold one row of {} at {} tokens", device.str(), name,
                                with_commas(tokens.total())));
  }
  return found;
}

}  // namespace tandem
