#pragma once
#include <optional>
#include <string>
#include <vector>

#include "eval/registry.h"

namespace tandem {

/// `tandem eval profile`: what inference takes by length, measured where it fits, computed
/// elsewhere.
struct ProfileConfig {
  // tokens of a row: the prompt, and at its end what is generated
  std::vector<int64_t> lengths = {32768, 65536, 131072, 262144, 524288, 1048576};
  int64_t generated = 1024;
  std::vector<int64_t> batches = {1};  // rows; 0: the most that `memory` holds
  std::string memory = "";             // such as 16GiB; empty: what the device has free
  double max_seconds = 60;             // that one prompt and its answer may take
  bool measure = true;                 // false: compute all
  int64_t repeats = 3;
  int64_t prefill_chunk = 4096;      // prompt tokens of one call; 0: all at once
  std::string cache_dtype = "same";  // of keys and values: same | float32 | bfloat16 | int8
  // of the device; the first is known of some in bfloat16
  std::optional<double> peak_tflops = {};
  std::optional<double> bandwidth = {};  // GB/s of its memory
  template <typename Visitor>
  void fields(Visitor& visit) {
    visit.value("lengths", lengths, at_least(2));
    visit.value("generated", generated, at_least(1));
    visit.value("batches", batches, at_least(0));
    visit.value("memory", memory);
    visit.value("max_seconds", max_seconds, at_least(0));
    visit.value("measure", measure);
    visit.value("repeats", repeats, at_least(1));
    visit.value("prefill_chunk", prefill_chunk, at_least(0));
    visit.one_of("cache_dtype", cache_dtype, {"bfloat16", "float32", "int8", "same"});
    visit.optional("peak_tflops", peak_tflops, at_least(0));
    visit.optional("bandwidth", bandwidth, at_least(0));
  }
};

/// "512MiB", "80GB", "1024": bytes, of 1024 or 1000 by the i. Throws bad_usage naming `flag`.
double parse_bytes(const std::string& flag, const std::string& text);

extern const char* const kProfileHelp;
EvalTable run_profile(const ProfileConfig& config, const EvalArgs& args);

}  // namespace tandem
