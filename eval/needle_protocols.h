#pragma once
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "eval/needle_draws.h"
#include "eval/needle_set.h"

namespace tandem {

/// What the needles are hidden in.
enum class NeedleText {
  kHaystack,  // NeedleSetConfig::haystack
  kNoise,     // RULER's sentences, whatever that says
  kLines,     // lines of the needle's own form: NeedlePlan::line
};

/// Where a needle may stand: behind a sentence, at the beginning of a line (the text ends with a
/// whole one then), or anywhere.
enum class NeedlePlace { kSentence, kLine, kToken };

struct Needle {
  std::string text;   // "The special magic Lima number is 417 . "
  std::string key;    // words that stand in no other place of the text: "special magic Lima number"
  std::string value;  // "417"
  double depth = 0;
  bool asked = false;
  int64_t jitter = 0;  // tokens added to the depth
};

/// A line of a filler, and the value in it.
struct NeedleLine {
  std::string text, value;
};

/// All of a sample but its filler. The prompt is before + context + after + answer_prefix.
struct NeedlePlan {
  std::string before = {}, after = {}, answer_prefix = {};
  std::vector<Needle> needles = {};
  WordKind value = WordKind::kNumber;
  // Of NeedleText::kLines; its values differ from each other and from the needles'.
  std::function<NeedleLine(Draws&)> line = {};
};

struct NeedleTask {
  std::string protocol, name;
  NeedleText text = NeedleText::kHaystack;
  NeedlePlace place = NeedlePlace::kSentence;
  bool one_line = false;  // white space of the haystack becomes single spaces
  // Between a needle and what stands beside it; empty: the needle brings its own.
  std::string separator = {};
  std::function<NeedlePlan(const NeedleSetConfig&, Draws&)> plan = {};
};

/// Throws bad_usage for a protocol or a task of it that is not known, listing those that are.
const NeedleTask& needle_task(const NeedleSetConfig& config);

/// RULER's eight (eval/needle_ruler.cpp), and the phone book (eval/needle_phonebook.cpp).
std::vector<NeedleTask> ruler_tasks();
NeedleTask phonebook_task();

/// "A", "A, and B", "A, B, and C", as RULER writes it.
std::string enumerated(const std::vector<std::string>& words);

}  // namespace tandem
