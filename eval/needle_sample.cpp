#include "eval/needle_sample.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cctype>
#include <stdexcept>

#include "core/error.h"
#include "core/json_lines.h"
#include "eval/needle_context.h"

namespace tandem {
namespace {

constexpr int kAttempts = 100;  // a filler full of numbers lets one pass sooner or later
constexpr size_t kDecoys = 9;   // fewest

// At most 2: more tell nothing.
int occurrences(const std::string& text, const std::string& word) {
  int n = 0;
  for (size_t at = 0; n < 2 && (at = text.find(word, at)) != std::string::npos; ++at) ++n;
  return n;
}

std::string trimmed(const std::string& text) {
  const size_t begin = text.find_first_not_of(" \n"), end = text.find_last_not_of(" \n");
  return begin == std::string::npos ? "" : text.substr(begin, end - begin + 1);
}

// Whether the text says something about a needle that no needle says.
bool clashes(const NeedlePlan& plan, const std::string& context) {
  for (const Needle& needle : plan.needles) {
    if (occurrences(context, needle.value) != 1) return true;
    const size_t behind = context.find(needle.value) + needle.value.size();
    if (behind < context.size() && std::isdigit(static_cast<unsigned char>(context[behind])))
      return true;  // the filler's digits went on with the value's
    const auto same = [&](const Needle& other) { return other.key == needle.key; };
    const auto planted = std::count_if(plan.needles.begin(), plan.needles.end(), same);
    size_t found = 0, at = 0;
    for (; (at = context.find(needle.key, at)) != std::string::npos; ++at) ++found;
    if (found != static_cast<size_t>(planted)) return true;
  }
  return false;
}

}  // namespace

std::vector<int64_t> find_in_tokens(std::span<const int64_t> ids,
                                    std::span<const std::string> texts,
                                    const Tokenizer& tokenizer) {
  constexpr size_t kWindow = 8192, kOverlap = 1024;
  const std::vector<int32_t> narrow(ids.begin(), ids.end());
  std::vector<int64_t> found(texts.size(), -1);
  for (size_t begin = 0; begin < narrow.size(); begin += kWindow - kOverlap) {
    const auto window = std::span(narrow).subspan(begin, std::min(kWindow, narrow.size() - begin));
    const std::string text = tokenizer.decode(window);
    for (size_t i = 0; i < texts.size(); ++i) {
      const size_t byte = found[i] < 0 ? text.find(texts[i]) : std::string::npos;
      if (byte == std::string::npos) continue;
      // The last token with which the text in front of it is not longer than `byte`.
      size_t low = 0, high = window.size();
      while (high - low > 1) {
        const size_t middle = low + (high - low) / 2;
        (tokenizer.decode(window.first(middle)).size() <= byte ? low : high) = middle;
      }
      found[i] = static_cast<int64_t>(begin + low);
    }
    if (begin + kWindow >= narrow.size()) break;
  }
  return found;
}

struct NeedleSampler::Draft {
  NeedlePlan plan;
  std::unique_ptr<SentenceSource> source;
  LineSource* lines = nullptr;  // `source`, where it is that
  std::unique_ptr<NeedleContext> context;
  bool clash = false;
  std::string text;  // context with needles
  NeedleSample sample;
  std::vector<int64_t> ids;
};

NeedleSampler::NeedleSampler(const NeedleSetConfig& config, const Tokenizer& tokenizer)
    : config_(config),
      task_(needle_task(config)),
      protocol_(needle_protocol(config.protocol)),
      tokenizer_(tokenizer) {
  if (task_.text == NeedleText::kHaystack) haystack_ = load_haystack(config.haystack, tokenizer);
  if (task_.text == NeedleText::kNoise) haystack_ = load_haystack("noise", tokenizer);
}

NeedleSample NeedleSampler::sample(int64_t index) const {
  const RandomStream own = RandomStream(config_.seed)
                               .fork("needles")
                               .fork(config_.protocol)
                               .fork(config_.task)
                               .fork(static_cast<uint64_t>(index));
  // Samples of other depths and lengths hide other needles in the same text, so that their prompts
  // begin alike.
  const RandomStream needles = own.fork("needles")
                                   .fork(static_cast<uint64_t>(config_.length))
                                   .fork(std::bit_cast<uint64_t>(config_.depth + 0.0));
  try {
    for (int i = 0; i < kAttempts; ++i) {
      std::optional<NeedleSample> made =
          attempt(own.fork("filler"), needles.fork(static_cast<uint64_t>(i)));
      if (!made) continue;
      made->index = index;
      return std::move(*made);
    }
    throw bad_usage(
        fmt::format("the values of {} draws, or their keys, stand in {} already; give "
                    "another haystack or a smaller length",
                    kAttempts, config_.haystack));
  } catch (const UserError& error) {
    throw UserError(error.exit_code(), fmt::format("sample {} of {} {}: {}", index,
                                                   config_.protocol, config_.task, error.what()));
  }
}

// Nothing where the filler holds by chance what a needle says.
std::optional<NeedleSample> NeedleSampler::attempt(const RandomStream& filler,
                                                   const RandomStream& needles) const {
  Draft draft;
  Draws draws(needles.fork("plan"));
  draft.plan = task_.plan(config_, draws);
  if (haystack_) {
    draft.source = std::make_unique<HaystackSource>(haystack_, tokenizer_, filler);
  } else {
    auto lines = std::make_unique<LineSource>(draft.plan, tokenizer_, filler);
    draft.lines = lines.get();
    draft.source = std::move(lines);
  }
  draft.context = std::make_unique<NeedleContext>(task_, draft.plan, *draft.source, tokenizer_);
  fit(draft);
  if (draft.clash) return std::nullopt;
  for (const Needle& needle : draft.plan.needles) {
    if (needle.asked) draft.sample.outputs.push_back(needle.value);
  }
  Draws fresh(needles.fork("decoys"));
  draft.sample.decoys = decoys(draft, fresh);
  if (config_.remove_needle) {
    write(draft, /*leave_out_asked=*/true);
    encode(draft);
  }

  std::vector<std::string> texts = draft.sample.outputs;
  for (const Needle& needle : draft.plan.needles) {
    if (needle.asked && config_.remove_needle) {
      if (draft.sample.input.find(needle.value) != std::string::npos)
        throw std::logic_error("a removed needle's value is in the text");
    } else {
      texts.push_back(trimmed(needle.text));
    }
  }
  const std::vector<int64_t> found = find_in_tokens(draft.ids, texts, tokenizer_);
  const size_t n = draft.sample.outputs.size();
  for (size_t i = config_.remove_needle ? n : 0; i < texts.size(); ++i) {
    if (found[i] < 0) {
      throw bad_usage("the prompt's tokens do not hold " + json_string(texts[i], 120) +
                      ": the tokenizer does not keep text");
    }
  }
  if (!config_.remove_needle)
    draft.sample.token_position_answer.assign(found.begin(),
                                              found.begin() + static_cast<int64_t>(n));
  return std::move(draft.sample);
}

// Counts by sentences are close, not exact: tokens may reach over their borders. So the prompt is
// encoded, and the filler made a little shorter or longer, until it is at most config.length with
// its answer, and nearly that.
void NeedleSampler::fit(Draft& draft) const {
  const auto tokens = [&](const std::string& text) {
    return static_cast<int64_t>(tokenizer_.encode(text).size());
  };
  int64_t parts = tokens(draft.plan.before) + tokens(draft.plan.after + draft.plan.answer_prefix) +
                  (protocol_.bos && tokenizer_.bos() ? 1 : 0);
  for (const Needle& needle : draft.plan.needles)
    parts += tokens(task_.separator + needle.text + task_.separator);
  const int64_t limit = config_.length - protocol_.max_new_tokens;
  constexpr int kTries = 4, kMostTries = 20;
  int64_t room = limit - parts;
  for (int tries = 1; tries <= kMostTries; ++tries) {
    draft.context->fill(room);
    if (draft.context->sentences() == 0) {
      const int64_t sentence = draft.context->next_tokens();
      const int64_t least = parts + protocol_.max_new_tokens + sentence;
      throw bad_usage(
          fmt::format("length {} is too short: instruction, needles and question take {} tokens, "
                      "the answer up to {}, a sentence of the text {}; expected at least {}",
                      config_.length, parts, protocol_.max_new_tokens, sentence,
                      (least / 64 + 2) * 64));  // other lengths have other needles
    }
    write(draft, /*leave_out_asked=*/false);
    draft.clash = clashes(draft.plan, draft.text);
    if (draft.clash) return;
    encode(draft);
    const int64_t left = limit - draft.sample.length;
    const int64_t slack = std::max(draft.context->next_tokens(), limit / 256);
    if (left >= 0 && (left <= slack || tries >= kTries)) return;
    room = (left < 0 ? draft.context->tokens() : room) + left;
  }
  throw bad_usage(
      fmt::format("no filler of whole sentences makes it at most {} tokens long", config_.length));
}

void NeedleSampler::write(Draft& draft, bool leave_out_asked) const {
  NeedleContext::Planted planted = draft.context->plant(leave_out_asked);
  draft.text = std::move(planted.text);
  draft.sample.input = draft.plan.before + draft.text + draft.plan.after;
  draft.sample.answer_prefix = draft.plan.answer_prefix;
  draft.sample.depth = planted.depth;
}

void NeedleSampler::encode(Draft& draft) const {
  draft.ids = needle_prompt(draft.sample, protocol_, tokenizer_);
  draft.sample.length = static_cast<int64_t>(draft.ids.size());
}

std::vector<std::string> NeedleSampler::decoys(const Draft& draft, Draws& draws) const {
  std::vector<std::string> found;
  DistinctWords words;
  for (const Needle& needle : draft.plan.needles) {
    words.add(needle.value);
    if (!needle.asked) found.push_back(needle.value);
  }
  const auto lines = draft.lines ? static_cast<int64_t>(draft.context->sentences()) : 0;
  const size_t from_lines = std::min(kDecoys, found.size() + static_cast<size_t>(lines));
  while (found.size() < from_lines) {
    const std::string& value = draft.lines->value(static_cast<size_t>(draws.below(lines)));
    if (std::find(found.begin(), found.end(), value) != found.end()) continue;
    words.add(value);
    found.push_back(value);
  }
  for (int draw = 0; found.size() < kDecoys; ++draw) {
    if (draw == 1000) throw bad_usage("the text holds nearly all values; give another haystack");
    const std::string value = words.draw(draft.plan.value, draws);
    if (draft.text.find(value) == std::string::npos) found.push_back(value);
  }
  return found;
}

}  // namespace tandem
