#include "eval/retrieval_samples.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <span>

#include "core/error.h"
#include "eval/needle_words.h"

namespace tandem {
namespace {

constexpr size_t kLeastText = size_t{64} << 10;
constexpr int64_t kShortestPairs = 16, kShortestDense = 56, kShortestNeedle = 120;
constexpr int64_t kNeedleTokens = 35;  // of a needle or of a question with its answer, generously

bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

// The words of 4 to 10 letters that `text` holds, each once.
std::vector<std::string> words_of(const std::string& text) {
  std::set<std::string> words;
  for (size_t begin = 0; begin < text.size();) {
    size_t end = begin;
    while (end < text.size() && is_letter(text[end])) ++end;
    if (end - begin >= 4 && end - begin <= 10) words.insert(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return {words.begin(), words.end()};
}

// Low and high included; low where high is below it.
int64_t between(Draws& draws, int64_t low, int64_t high) {
  return low + draws.below(std::max(low, high) - low + 1);
}

template <typename T>
const T& one_of(Draws& draws, std::span<const T> list) {
  return list[static_cast<size_t>(draws.below(static_cast<int64_t>(list.size())))];
}

template <typename T>
void shuffle(Draws& draws, std::vector<T>& list) {
  for (size_t i = list.size(); i > 1; --i)
    std::swap(list[i - 1], list[static_cast<size_t>(draws.below(static_cast<int64_t>(i)))]);
}

std::string number(Draws& draws) { return draw_word(WordKind::kNumber, draws); }

}  // namespace

struct RetrievalSamples::Draft {
  std::string text;
  std::vector<std::pair<size_t, size_t>> answers;  // bytes [begin, end)
  void add_answer(const std::string& number) {
    answers.emplace_back(text.size(), text.size() + number.size() + 2);  // with the closing " ."
    text += number + " . ";
  }
  void add_question(const std::string& key, const std::string& number) {
    text += yoco_question(key) + yoco_answer_prefix(key);
    add_answer(number);
  }
};

RetrievalSamples::RetrievalSamples(const RetrievalConfig& config, const Tokenizer& tokenizer,
                                   std::string text)
    : config_(config), tokenizer_(tokenizer), text_(std::move(text)), words_(words_of(text_)) {
  if (!tokenizer.bos()) throw bad_usage(tokenizer.name() + " has no BOS, which begins each sample");
  if (text_.size() < kLeastText || words_.size() < 100) {
    throw bad_usage("the text holds " + std::to_string(text_.size()) + " bytes and " +
                    std::to_string(words_.size()) +
                    " words, expected at least 65536 bytes and 100 words of 4 to 10 letters");
  }
  const auto check = [&](const char* kind, double share, int64_t shortest) {
    if (!(share >= 0))
      throw bad_usage(std::string("share of ") + kind + " is negative, expected at least 0");
    if (share > 0 && config.length < shortest)
      throw bad_usage("length " + std::to_string(config.length) + ", expected at least " +
                      std::to_string(shortest) + " where " + kind + " has a share");
  };
  check("pairs", config.pairs, kShortestPairs);
  check("dense", config.dense, kShortestDense);
  check("needle", config.needle, kShortestNeedle);
  if (!(config.pairs + config.dense + config.needle > 0))
    throw bad_usage("no kind of samples has a share above 0");
  // Spaces between words only: a needle never begins inside of a line break.
  std::replace(text_.begin(), text_.end(), '\n', ' ');
  bytes_per_token_ = static_cast<double>(kLeastText) /
                     static_cast<double>(tokens(text_.substr(0, kLeastText)));
}

int64_t RetrievalSamples::tokens(const std::string& text) const {
  return static_cast<int64_t>(tokenizer_.encode(text).size());
}

std::string RetrievalSamples::key(Draws& draws) const {
  if (draws.uniform() < config_.word_keys) return one_of(draws, std::span<const std::string>(words_));
  return std::string(one_of(draws, needle_cities()));
}

std::vector<std::string> RetrievalSamples::keys(Draws& draws, size_t n) const {
  std::vector<std::string> keys;
  while (keys.size() < n) {
    std::string one = key(draws);
    if (std::find(keys.begin(), keys.end(), one) == keys.end()) keys.push_back(std::move(one));
  }
  return keys;
}

// About so many bytes from anywhere in the text, whole words, a space behind the last.
std::string RetrievalSamples::filler(Draws& draws, size_t bytes) const {
  bytes = std::min(bytes, text_.size() / 2);
  if (bytes == 0) return "";
  auto begin = static_cast<size_t>(draws.below(static_cast<int64_t>(text_.size() - bytes)));
  begin = text_.find(' ', begin);
  if (begin == std::string::npos || begin + bytes >= text_.size()) begin = 0;
  const size_t end = text_.find(' ', begin + bytes);
  return text_.substr(begin + 1, end == std::string::npos ? bytes : end - begin);
}

RetrievalSamples::Draft RetrievalSamples::pairs(Draws& draws) const {
  const std::vector<std::string> pool =
      keys(draws, static_cast<size_t>(between(draws, 1, std::max<int64_t>(1, config_.length / 12))));
  const bool in_words = draws.uniform() < 0.5;
  std::map<std::string, std::string> numbers;
  Draft draft;
  // A token is a byte at least, so that the sample is full.
  while (draft.text.size() < static_cast<size_t>(config_.length) * 8) {
    const std::string& key = one_of(draws, std::span<const std::string>(pool));
    draft.text += in_words ? yoco_answer_prefix(key) : key + " ";
    const auto [entry, is_first] = numbers.try_emplace(key);
    if (is_first) entry->second = number(draws);
    is_first ? void(draft.text += entry->second + " . ") : draft.add_answer(entry->second);
  }
  return draft;
}

RetrievalSamples::Draft RetrievalSamples::dense(Draws& draws) const {
  const int64_t most = std::max<int64_t>(1, config_.length / (2 * kNeedleTokens));
  std::vector<std::pair<std::string, std::string>> needles;
  for (std::string& key : keys(draws, static_cast<size_t>(1 + draws.below(most))))
    needles.emplace_back(std::move(key), number(draws));
  Draft draft;
  for (const auto& [key, number] : needles)
    draft.text += filler(draws, static_cast<size_t>(draws.below(24))) + yoco_needle(key, number);
  shuffle(draws, needles);
  for (const auto& [key, number] : needles) draft.add_question(key, number);
  return draft;
}

RetrievalSamples::Draft RetrievalSamples::needle(Draws& draws) const {
  const int64_t room = config_.length - 1 - tokens(std::string(kYocoInstruction));
  const int64_t n = between(draws, 1, std::min<int64_t>(8, room / kNeedleTokens - 1));
  const int64_t asked =
      between(draws, 1, std::min({int64_t{4}, n, room / kNeedleTokens - n}));
  std::vector<std::pair<std::string, std::string>> needles;
  for (std::string& key : keys(draws, static_cast<size_t>(n)))
    needles.emplace_back(std::move(key), number(draws));
  std::vector<std::pair<std::string, std::string>> questions = needles;
  shuffle(draws, questions);
  questions.resize(static_cast<size_t>(asked));

  int64_t fixed = 0;
  for (const auto& [key, number] : needles) fixed += tokens(yoco_needle(key, number));
  for (const auto& [key, number] : questions)
    fixed += tokens(yoco_question(key) + yoco_needle(key, number));
  // A little less than fits, as the filler's tokens are an estimate; the rest follows the answers.
  const auto left = static_cast<double>(std::max<int64_t>(0, room - fixed));
  std::string middle = filler(draws, static_cast<size_t>(left * bytes_per_token_ * 0.93));
  std::vector<size_t> places;  // in the text before any needle is in it
  for (int64_t i = 0; i < n; ++i) {
    const size_t space = middle.empty() ? middle.npos : middle.rfind(' ', static_cast<size_t>(draws.below(static_cast<int64_t>(middle.size()))));
    places.push_back(space == middle.npos ? 0 : space + 1);
  }
  std::sort(places.rbegin(), places.rend());
  for (size_t i = 0; i < places.size(); ++i)
    middle.insert(places[i], yoco_needle(needles[i].first, needles[i].second));
  Draft draft;
  draft.text = std::string(kYocoInstruction) + middle;
  for (const auto& [key, number] : questions) draft.add_question(key, number);
  return draft;
}

RetrievalSamples::Sample RetrievalSamples::encoded(const Draft& draft) const {
  const auto n = static_cast<size_t>(config_.length);
  Sample sample;
  sample.ids.push_back(*tokenizer_.bos());
  tokenizer_.append(draft.text, Specials::kAsText, sample.ids);
  sample.ids.resize(n);  // drafts are filled up beforehand
  sample.weights.assign(n, static_cast<float>(config_.other_weight));
  sample.weights[0] = 0;
  size_t begin = 0, answer = 0;
  for (size_t t = 1; t < n; ++t) {
    const size_t end = begin + static_cast<size_t>(tokenizer_.byte_length(sample.ids[t]));
    while (answer < draft.answers.size() && draft.answers[answer].second <= begin) ++answer;
    const bool is_answer = answer < draft.answers.size() && end > draft.answers[answer].first;
    if (is_answer) sample.weights[t] = 1;
    begin = end;
  }
  return sample;
}

RetrievalSamples::Sample RetrievalSamples::operator()(int64_t k) const {
  Draws draws(RandomStream(config_.seed).fork("retrieval").fork(static_cast<uint64_t>(k)));
  const double at = draws.uniform() * (config_.pairs + config_.dense + config_.needle);
  Draft draft = at < config_.pairs                   ? pairs(draws)
                : at < config_.pairs + config_.dense ? dense(draws)
                                                     : needle(draws);
  // A token holds at least a byte, and hardly ever more than 16.
  while (tokens(draft.text) < config_.length)
    draft.text += filler(draws, static_cast<size_t>(config_.length) * 4);
  return encoded(draft);
}

}  // namespace tandem
