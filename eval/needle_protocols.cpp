#include "eval/needle_protocols.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "core/error.h"
#include "eval/needle_words.h"

namespace tandem {
namespace {

// Prompts and needles are the published strings; all but YOCO's single needle have a colon.
std::string magic_needle(std::string_view city, std::string_view number) {
  return fmt::format("The special magic {} number is: {}", city, number);
}

std::string magic_question(std::string_view city) {
  return fmt::format("What is the special magic {} number?", city);
}

std::string magic_key(std::string_view city) {
  return fmt::format("special magic {} number", city);
}

using MakeText = std::string (*)(std::string_view city, std::string_view number);

// The first is asked for and stands at the depth.
std::vector<Needle> city_needles(int64_t n, WordKind value, MakeText text, double depth,
                                 Draws& draws, std::vector<std::string>* cities) {
  DistinctWords names, values;  // YOCO's code draws from a list in which cities stand twice, so
                                // that one question may have two answers; not so here
  std::vector<Needle> needles;
  for (int64_t i = 0; i < n; ++i) {
    const std::string city = names.draw(WordKind::kCity, draws);
    const std::string number = values.draw(value, draws);
    cities->push_back(city);
    needles.push_back({.text = text(city, number),
                       .key = magic_key(city),
                       .value = number,
                       .depth = i == 0 ? depth : draws.uniform(),
                       .asked = i == 0});
  }
  return needles;
}

// YOCO's code: filler, needle and question are joined by newlines. It ends the prompt in two
// spaces, here in the one of the answer's beginning.
NeedlePlan plan_yoco(const NeedleSetConfig& config, Draws& draws, MakeText text, int64_t n) {
  NeedlePlan plan{.before = std::string(kYocoInstruction), .value = WordKind::kNumber};
  std::vector<std::string> cities;
  plan.needles = city_needles(n, plan.value, text, config.depth, draws, &cities);
  // The last one before the depth is asked for; 0 to n - 2 stand before it, the others behind.
  const int64_t before = n > 1 ? draws.below(n - 1) : 0;
  for (int64_t i = 1; i < n; ++i) {
    double& depth = plan.needles[static_cast<size_t>(i)].depth;
    depth = i <= before ? depth * config.depth : config.depth + depth * (1 - config.depth);
  }
  const auto first = plan.needles.begin();  // in the order of the text, for those of one place
  std::rotate(first, first + 1, first + 1 + before);
  plan.after = "\n" + yoco_question(cities[0]);
  plan.answer_prefix = yoco_answer_prefix(cities[0]);
  return plan;
}

NeedleTask yoco_task(std::string name, MakeText text) {
  const bool single = name == "single";
  return {.protocol = "yoco",
          .name = std::move(name),
          .separator = "\n",
          .plan = [text, single](const NeedleSetConfig& config, Draws& draws) {
            return plan_yoco(config, draws, text, single ? 1 : config.needles);
          }};
}

// Block Transformer's code: the needle goes between two tokens, not sentences.
NeedleTask block_transformer_task(std::string name) {
  const auto plan = [name](const NeedleSetConfig& config, Draws& draws) {
    constexpr int64_t kJitter = 10;
    NeedlePlan made{.before = "<context>\n", .value = WordKind::kSevenDigits};
    std::vector<std::string> cities;
    made.needles = city_needles(1, made.value, magic_needle, config.depth, draws, &cities);
    if (config.depth > 0 && config.depth < 1)
      made.needles[0].jitter = draws.below(2 * kJitter + 1) - kJitter;
    made.after = "\n</context>\n\n" + magic_question(cities[0]);
    if (name == "gemini_original")
      made.after += " Don't give information outside the document or repeat your findings.";
    made.after += "\n\n";
    made.answer_prefix = name == "verbatim"
                             ? fmt::format("the special magic {} number is:", cities[0])
                             : "Here is the magic number from the context:";
    return made;
  };
  return {.protocol = "block-transformer",
          .name = std::move(name),
          .place = NeedlePlace::kToken,
          .plan = plan};
}

std::string own_line(std::string_view city, std::string_view number) {
  return "\n" + magic_needle(city, number) + "\n";
}

// Large World Model: `asked` of `planted` needles. The first asked for stands at the depth, the
// others anywhere.
NeedleTask lwm_task(std::string name, int64_t planted, int64_t asked) {
  const auto plan = [planted, asked](const NeedleSetConfig& config, Draws& draws) {
    NeedlePlan made{.before = "You are a helpful assistant. USER: ",
                    .value = WordKind::kSevenDigits};
    std::vector<std::string> cities;
    made.needles = city_needles(planted, made.value, own_line, config.depth, draws, &cities);
    for (int64_t i = 0; i < asked; ++i) made.needles[static_cast<size_t>(i)].asked = true;
    cities.resize(static_cast<size_t>(asked));
    const std::string question =
        asked == 1 ? magic_question(cities[0])
                   : fmt::format("What are the special magic numbers for {}?", enumerated(cities));
    made.after = " " + question +
                 " Don't give information outside the document or repeat your findings. Keep your "
                 "response short and direct. ASSISTANT: ";
    return made;
  };
  return {.protocol = "lwm", .name = std::move(name), .plan = plan};
}

// G. Kamradt's test. Its needle, a thing to do in San Francisco, is judged by a model; a city's
// number can be checked.
NeedlePlan plan_gkamradt(const NeedleSetConfig& config, Draws& draws) {
  NeedlePlan plan{.before =
                      "You are a helpful AI bot that answers questions for a user. Keep your "
                      "response short and direct\n\n",
                  .value = WordKind::kSevenDigits};
  std::vector<std::string> cities;
  plan.needles = city_needles(1, plan.value, own_line, config.depth, draws, &cities);
  plan.after = "\n\n" + magic_question(cities[0]) +
               " Don't give information outside the document or repeat your findings\n\n";
  return plan;
}

const std::vector<NeedleTask>& all_tasks() {
  static const std::vector<NeedleTask> tasks = [] {
    std::vector<NeedleTask> all = {
        yoco_task("single", yoco_needle),
        yoco_task("multi", magic_needle),
        yoco_task("multi_dot", yoco_needle),
        block_transformer_task("verbatim"),
        block_transformer_task("gemini_original"),
        block_transformer_task("gemini_simplified"),
        lwm_task("single", 1, 1),
        lwm_task("1_of_4", 4, 1),
        lwm_task("2_of_4", 4, 2),
        lwm_task("4_of_4", 4, 4),
        {.protocol = "gkamradt", .name = "single", .plan = plan_gkamradt},
        phonebook_task(),
    };
    for (NeedleTask& task : ruler_tasks()) all.push_back(std::move(task));
    return all;
  }();
  return tasks;
}

struct ProtocolRule {
  const char* name;
  int64_t max_new_tokens;
  bool bos, all_outputs;
};

// New tokens are the published ones but for lwm's and gkamradt's, where a sentence is expected.
constexpr ProtocolRule kProtocols[] = {
    {"yoco", 20, true, false},
    {"ruler", 128, true, true},
    {"block-transformer", 20, false, false},  // Pythia was trained without BOS
    {"lwm", 64, true, true},
    {"gkamradt", 64, true, false},
    {"phonebook", 20, true, false},
};

std::vector<NeedleProtocol> make_protocols() {
  std::vector<NeedleProtocol> protocols;
  for (const ProtocolRule& rule : kProtocols) {
    NeedleProtocol protocol{.name = rule.name,
                            .tasks = {},
                            .max_new_tokens = rule.max_new_tokens,
                            .bos = rule.bos,
                            .all_outputs = rule.all_outputs};
    for (const NeedleTask& task : all_tasks()) {
      if (task.protocol == rule.name) protocol.tasks.push_back(task.name);
    }
    protocols.push_back(std::move(protocol));
  }
  return protocols;
}

}  // namespace

std::string enumerated(const std::vector<std::string>& words) {
  if (words.size() == 1) return words[0];
  const std::vector<std::string> first(words.begin(), words.end() - 1);
  return fmt::format("{}, and {}", fmt::join(first, ", "), words.back());
}

const NeedleProtocol& needle_protocol(const std::string& name) {
  static const std::vector<NeedleProtocol> protocols = make_protocols();
  std::vector<std::string> names;
  for (const NeedleProtocol& protocol : protocols) {
    if (protocol.name == name) return protocol;
    names.push_back(protocol.name);
  }
  throw bad_usage(fmt::format("unknown needle protocol {}, expected one of: {}", one_line(name),
                              fmt::join(names, ", ")));
}

const NeedleTask& needle_task(const NeedleSetConfig& config) {
  const NeedleProtocol& protocol = needle_protocol(config.protocol);
  for (const NeedleTask& task : all_tasks()) {
    if (task.protocol == config.protocol && task.name == config.task) return task;
  }
  throw bad_usage(fmt::format("unknown task {} of needle protocol {}, expected one of: {}",
                              one_line(config.task), config.protocol,
                              fmt::join(protocol.tasks, ", ")));
}

}  // namespace tandem
