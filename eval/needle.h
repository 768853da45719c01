#pragma once
#include <optional>
#include <string>
#include <vector>

#include "eval/needle_set.h"
#include "eval/registry.h"

namespace tandem {

/// `tandem eval needle`: facts hidden in long texts, found again or not.
struct NeedleConfig {
  std::string protocol = "yoco";
  std::vector<std::string> tasks = {};      // of the protocol; empty: its first; "all": all of them
  std::vector<int64_t> lengths = {4096};    // tokens of prompt and answer
  std::vector<double> depths = {};          // of the needle asked for; empty: by depth_count
  std::optional<int64_t> depth_count = {};  // evenly spaced: depths_of()
  int64_t samples = 10;                     // of a cell
  std::vector<int64_t> needles = {1};       // yoco's multi and multi_dot: 1, 2, 4, 8
  std::string haystack = "noise";
  bool remove_needle = false;        // the control
  bool decoys = true;                // compare the answer's log-probability with wrong ones'
  std::string cache = "";            // folder that keeps sets; empty: none
  int64_t chunk = 4096;              // prompt tokens of one call
  std::string cache_dtype = "same";  // of keys and values: same | float32 | bfloat16 | int8
  double memory_gib = 4;             // of the states held at once, where one row has room in it
  template <typename Visitor>
  void fields(Visitor& visit) {
    visit.value("protocol", protocol);
    visit.value("tasks", tasks);
    visit.value("lengths", lengths, at_least(1));
    visit.value("depths", depths, in_range(0, 1));
    visit.optional("depth_count", depth_count, at_least(1));
    visit.value("samples", samples, at_least(1));
    visit.value("needles", needles, at_least(1));
    visit.value("haystack", haystack);
    visit.value("remove_needle", remove_needle);
    visit.value("decoys", decoys);
    visit.value("cache", cache);
    visit.value("chunk", chunk, at_least(1));
    visit.one_of("cache_dtype", cache_dtype, {"bfloat16", "float32", "int8", "same"});
    visit.value("memory_gib", memory_gib, above(0));
  }
};

/// The depths of a task. n by depth_count are k / (n - 1), k = 0 .. n - 1, of which one alone is
/// 0.5 (absent: 11); for yoco's multi tasks k / (n + 1), k = 1 .. n, as in its code (absent: 10).
std::vector<double> depths_of(const NeedleConfig& config, const std::string& task);

/// The most tokens that a length may be for a model with packing.max_length > 0 positions.
int64_t longest_needle_text(const Packing& packing);

extern const char* const kNeedleHelp;
EvalTable run_needle(const NeedleConfig& config, const EvalArgs& args);

}  // namespace tandem
