#pragma once
#include <string>

#include "cli/bench_case.h"
#include "cli/largest_batch.h"
#include "eval/inference_timing.h"

namespace tandem {

/// The largest batch whose state options.memory_bytes hold at the end; without memory_bytes the
/// largest of at most 65,535 rows that the device can run, found by trying. Throws bad_usage where
/// that is none.
LargestBatch largest_batch(const Workload& workload, const std::string& name,
                           const LanguageModel& model, const BenchLength& tokens,
                           const BenchOptions& options, torch::Device device);

}  // namespace tandem
