// The phone book (Jelassi et al., arXiv 2402.01032, as in ArchScale): lines "Name: number", two of
// them again as examples, then a name. As many lines as fit; none of the lines beside the asked one
// is a distractor more than another.
#include <fmt/format.h>

#include <memory>

#include "core/error.h"
#include "eval/needle_names.h"
#include "eval/needle_protocols.h"

namespace tandem {
namespace {

constexpr int64_t kExamples = 2;

/// Names without repetition, those without an initial first.
class Names {
 public:
  explicit Names(RandomStream stream)
      : plain_(static_cast<uint64_t>(plain_person_names()), stream.fork("plain")),
        more_(static_cast<uint64_t>(person_names() - plain_person_names()), stream.fork("more")) {}
  std::string next() {
    const int64_t i = next_++;
    if (i >= person_names()) {
      throw bad_usage(fmt::format("the phone book has names for {} lines; give a smaller length",
                                  person_names()));
    }
    if (i < plain_person_names())
      return person_name(static_cast<int64_t>(plain_(static_cast<uint64_t>(i))));
    return person_name(plain_person_names() + static_cast<int64_t>(more_(static_cast<uint64_t>(
                                                  i - plain_person_names()))));
  }

 private:
  Permutation plain_, more_;
  int64_t next_ = 0;
};

NeedlePlan plan_phonebook(const NeedleSetConfig& config, Draws& draws) {
  const auto names = std::make_shared<Names>(RandomStream(draws.bits()).fork("names"));
  const auto numbers = std::make_shared<DistinctWords>(/*filler=*/true);
  NeedlePlan plan{.value = WordKind::kTenDigits};
  plan.after = "\n\n";
  for (int64_t i = 0; i <= kExamples; ++i) {
    const std::string name = names->next(), number = numbers->draw(plan.value, draws);
    plan.needles.push_back({.text = name + ": " + number,
                            .key = name + ":",
                            .value = number,
                            .depth = i == 0 ? config.depth : draws.uniform(),
                            .asked = i == 0});
    if (i > 0) plan.after += name + ": " + number + "\n";
    if (i == 0) plan.answer_prefix = name + ":";
  }
  plan.line = [names, numbers](Draws& more) {
    const std::string number = numbers->draw(WordKind::kTenDigits, more);
    return NeedleLine{names->next() + ": " + number, number};
  };
  return plan;
}

}  // namespace

NeedleTask phonebook_task() {
  return {.protocol = "phonebook",
          .name = "single",
          .text = NeedleText::kLines,
          .place = NeedlePlace::kLine,
          .separator = "\n",
          .plan = plan_phonebook};
}

}  // namespace tandem
