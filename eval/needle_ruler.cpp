// RULER's eight needle tasks (Hsieh et al., arXiv 2404.06654): templates and table as published.
// What differs: a sample's place is given (the first needle asked for stands at
// NeedleSetConfig::depth, the others anywhere), and words, numbers and order are drawn by tandem's
// own streams.
#include <fmt/format.h>

#include <memory>

#include "eval/needle_protocols.h"

namespace tandem {
namespace {

struct RulerTask {
  const char* name;
  NeedleText text;
  WordKind key, value;
  int64_t keys, values, queries;  // values of each key
};

constexpr WordKind kWords = WordKind::kAdjectiveNoun, kNumbers = WordKind::kSevenDigits,
                   kUuids = WordKind::kUuid;
constexpr NeedleText kEssay = NeedleText::kHaystack;
constexpr RulerTask kTasks[] = {
    {"niah_single_1", NeedleText::kNoise, kWords, kNumbers, 1, 1, 1},
    {"niah_single_2", kEssay, kWords, kNumbers, 1, 1, 1},
    {"niah_single_3", kEssay, kWords, kUuids, 1, 1, 1},
    {"niah_multikey_1", kEssay, kWords, kNumbers, 4, 1, 1},
    {"niah_multikey_2", NeedleText::kLines, kWords, kNumbers, 1, 1, 1},
    {"niah_multikey_3", NeedleText::kLines, kUuids, kUuids, 1, 1, 1},
    {"niah_multivalue", kEssay, kWords, kNumbers, 1, 4, 1},
    {"niah_multiquery", kEssay, kWords, kNumbers, 4, 1,
     4},  // published as 1 key; it plants as many as it asks
};

std::string plural(WordKind kind) { return kind == kUuids ? "uuids" : "numbers"; }

std::string key_words(const std::string& key) { return "for " + key + " is:"; }

// The plural stays where one needle is planted.
std::string ruler_needle(WordKind kind, const std::string& key, const std::string& value) {
  return fmt::format("One of the special magic {} {} {}.", plural(kind), key_words(key), value);
}

void add_wording(const RulerTask& task, const std::string& query, NeedlePlan& plan) {
  const bool one = task.queries * task.values == 1;
  std::string type = plural(task.value);
  if (one) type.pop_back();
  plan.before = fmt::format(
      "{} special magic {} {} hidden within the following text. Make sure to memorize it. I will "
      "quiz you about the {} afterwards.\n",
      one ? "A" : "Some", type, one ? "is" : "are", type);
  plan.after = fmt::format("\nWhat {} the special magic {} for {} mentioned in the provided text?",
                           one ? "is" : "are all", type, query);
  plan.answer_prefix = fmt::format(" The special magic {} for {} mentioned in the provided text {}",
                                   type, query, one ? "is" : "are");
}

NeedlePlan plan_ruler(const RulerTask& task, const NeedleSetConfig& config, Draws& draws) {
  NeedlePlan plan{.value = task.value};
  // The filler's lines draw from these too.
  const auto keys = std::make_shared<DistinctWords>(task.text == NeedleText::kLines);
  const auto values = std::make_shared<DistinctWords>(task.text == NeedleText::kLines);
  std::vector<std::string> asked;
  for (int64_t k = 0; k < task.keys; ++k) {
    const std::string key = keys->draw(task.key, draws);
    if (k < task.queries) asked.push_back(key);
    for (int64_t v = 0; v < task.values; ++v) {
      const std::string value = values->draw(task.value, draws);
      plan.needles.push_back({.text = ruler_needle(task.value, key, value),
                              .key = key_words(key),
                              .value = value,
                              .depth = k + v == 0 ? config.depth : draws.uniform(),
                              .asked = k < task.queries});
    }
  }
  add_wording(task, enumerated(asked), plan);
  if (task.text == NeedleText::kLines) {
    const std::string own_key = asked[0];
    plan.line = [task, own_key, values](Draws& more) {
      std::string key;
      do key = draw_word(task.key, more);
      while (key == own_key);
      std::string value = values->draw(task.value, more);
      return NeedleLine{ruler_needle(task.value, key, value), value};
    };
  }
  return plan;
}

}  // namespace

std::vector<NeedleTask> ruler_tasks() {
  std::vector<NeedleTask> tasks;
  for (const RulerTask& task : kTasks) {
    const bool lines = task.text != kEssay;
    tasks.push_back({.protocol = "ruler",
                     .name = task.name,
                     .text = task.text,
                     .place = lines ? NeedlePlace::kLine : NeedlePlace::kSentence,
                     .one_line = !lines,
                     .separator = lines ? "\n" : " ",
                     .plan = [task](const NeedleSetConfig& config, Draws& draws) {
                       return plan_ruler(task, config, draws);
                     }});
  }
  return tasks;
}

}  // namespace tandem
