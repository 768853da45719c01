#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "cli/bench_case.h"
#include "cli/largest_batch.h"

namespace tandem {

/// One prompt and what is generated after it, in all rows of the batch.
struct BenchRun {
  double prefill_ms = 0, decode_ms = 0;
  double total_ms = 0;                      // both and what is around them: the whole generate call
  int64_t state_bytes = 0;                  // after the prompt
  int64_t before_bytes = 0;                 // in use before, the model included
  std::optional<int64_t> prefill_peak_bytes, peak_bytes;  // beyond before_bytes
  std::optional<int64_t> prefill_beyond_state_bytes;  // the peak less state_bytes, so with spare room
  std::optional<int64_t> reserved_bytes;              // by the allocator of a GPU
  double seconds() const { return (prefill_ms + decode_ms) / 1e3; }
};

/// The runs that count.
struct Measured {
  std::vector<BenchRun> runs;
  bool warm_up = true;  // there was one before them
};

/// Measures a batch of so many rows once.
using Workload = std::function<BenchRun(int64_t batch)>;

/// Prompts of random ids, then greedy decoding without an end. Prefill asks for the logits of the
/// last token only, so that models with an early exit take it.
Workload whole_workload(LanguageModel& model, const BenchLength& tokens,
                        const BenchOptions& options, torch::Device device);
/// Only decoding is timed: one row has read its prompt here already, and every row goes on from a
/// copy of its state. A run's prefill_ms is that row's.
Workload decode_workload(LanguageModel& model, const BenchLength& tokens,
                         const BenchOptions& options, torch::Device device);

/// One run as a warm-up, then options.repeats. A first run that takes too long to be done again, or
/// so long that what a warm-up is for is nothing beside it, counts.
Measured measure(const Workload& workload, int64_t batch, const BenchOptions& options);

/// Whether `error` is that a device, or a library on it, has no more memory: c10::OutOfMemoryError is
/// only what LibTorch's own GPU allocator throws.
bool is_out_of_memory(const c10::Error& error);

/// The largest batch whose state options.memory_bytes hold at the end; without memory_bytes the
/// largest of at most 65,535 rows that the device can run, found by trying. Throws bad_usage where
/// that is none.
LargestBatch largest_batch(const Workload& workload, const std::string& name,
                           const LanguageModel& model, const BenchLength& tokens,
                           const BenchOptions& options, torch::Device device);

}  // namespace tandem
