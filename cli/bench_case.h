#pragma once
#include <string>
#include <vector>

#include "cli/bench_options.h"
#include "eval/inference_timing.h"
#include "eval/loaded_model.h"

namespace tandem {

/// Tokens of a row in one measurement: as asked, and as whole blocks of the model.
struct BenchLength : InferenceLength {
  std::string of_case;  // "2048+128" of --cases, or empty
  int64_t length = 0;   // of --lengths, or of both parts of the case
};

/// One measurement.
struct BenchCase {
  std::string name;  // as given to the command
  const LoadedModel& loaded;
  BenchLength tokens;
  int64_t asked_batch = 0, batch = 0;  // they differ for the largest, which is asked for as 0
};

/// Those of the options, for `model`. Throws bad_usage for a case that is not PROMPT+GENERATED, for
/// a length that leaves no prompt and for one that the model cannot take.
std::vector<BenchLength> bench_lengths(const BenchOptions& options, const std::string& name,
                                       const LanguageModel& model);

/// What keys and values are held in.
torch::Dtype cache_dtype_of(const BenchOptions& options);

}  // namespace tandem
