#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "nn/language_model.h"

namespace tandem {

/// Tokens of a row in one measurement.
struct InferenceLength {
  int64_t prompt = 0, generated = 0;
  int64_t total() const { return prompt + generated; }
};

/// The least multiple that is at least n.
int64_t rounded_up(int64_t n, int64_t multiple);
/// `tokens` as whole blocks of `model`. Throws bad_usage where the model, called `name`, does not
/// take so many.
InferenceLength whole_blocks(InferenceLength tokens, const std::string& name,
                             const LanguageModel& model);

/// How a case is measured.
struct TimingOptions {
  int64_t repeats = 5, prefill_chunk = 0;
  double max_seconds = 0;  // of a case; 0: no limit
  uint64_t seed = 0;       // of the prompts
  std::string cache_dtype = "same";
};

/// One prompt and what is generated after it, in all rows of the batch.
struct InferenceRun {
  double prefill_ms = 0, decode_ms = 0;
  double total_ms = 0;      // both and what is around them: the whole generate call
  int64_t state_bytes = 0;  // after the prompt
  int64_t end_state_bytes = 0;
  int64_t before_bytes = 0;                               // in use before, the model included
  std::optional<int64_t> prefill_peak_bytes, peak_bytes;  // beyond before_bytes
  std::optional<int64_t>
      prefill_beyond_state_bytes;         // the peak less state_bytes, so with spare room
  std::optional<int64_t> reserved_bytes;  // by the allocator of a GPU
  double seconds() const { return (prefill_ms + decode_ms) / 1e3; }
};

/// The runs that count.
struct Measured {
  std::vector<InferenceRun> runs;
  bool warm_up = true;  // there was one before them
};

struct Spread {
  double median = 0, min = 0, max = 0;
};
/// Of a value of each run.
Spread spread_over(const Measured& measured,
                   const std::function<double(const InferenceRun&)>& value_of);

/// Measures a batch of so many rows once.
using Workload = std::function<InferenceRun(int64_t batch)>;

/// Prompts of random ids, then greedy decoding without an end. Prefill asks for the logits of the
/// last token only, so that models with an early exit take it.
Workload whole_workload(LanguageModel& model, const InferenceLength& tokens,
                        const TimingOptions& options, torch::Device device);
/// Only decoding is timed: one row has read its prompt here already, and every row goes on from a
/// copy of its state. A run's prefill_ms is that row's.
Workload decode_workload(LanguageModel& model, const InferenceLength& tokens,
                         const TimingOptions& options, torch::Device device);

/// One run as a warm-up, then options.repeats. A first run that takes too long to be done again, or
/// so long that what a warm-up is for is nothing beside it, counts.
Measured measure(const Workload& workload, int64_t batch, const TimingOptions& options);

/// Whether `error` is that a device, or a library on it, has no more memory: c10::OutOfMemoryError
/// is only what LibTorch's own GPU allocator throws.
bool is_out_of_memory(const c10::Error& error);

/// Prompts of random ids. A row's do not depend on the batch.
std::vector<std::vector<int64_t>> random_prompts(int64_t vocab_size, int64_t batch, int64_t length,
                                                 uint64_t seed);

}  // namespace tandem
