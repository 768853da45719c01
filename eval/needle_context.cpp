#include "eval/needle_context.h"

#include <algorithm>
#include <cmath>

namespace tandem {
namespace {

constexpr std::string_view kSpace = " \t\r\n";

std::string_view without_space(std::string_view text) {
  const size_t begin = text.find_first_not_of(kSpace);
  return begin == std::string_view::npos ? std::string_view() : text.substr(begin);
}

/// Runs of white space as one space each, none at the end: the next sentence brings its own.
std::string folded(std::string_view text) {
  std::string made;
  bool in_space = false;
  for (const char c : text) {
    const bool is_space = kSpace.find(c) != std::string_view::npos;
    if (!is_space) made += c;
    if (is_space && !in_space) made += ' ';
    in_space = is_space;
  }
  if (in_space) made.pop_back();
  return made;
}

/// Sentences and needles one behind the other.
class Joined {
 public:
  Joined(const std::string& separator, bool one_line)
      : separator_(separator), one_line_(one_line) {}
  void sentence(std::string_view text) {
    std::string in_one_line;
    if (one_line_) text = in_one_line = folded(text);
    if (text.empty()) return;
    if (text_.empty()) {
      text_ = without_space(text);
    } else if (after_needle_ && !separator_.empty()) {
      text_ += separator_;
      text_ += without_space(text);
    } else {
      text_ += text;
    }
    after_needle_ = false;
  }
  void needle(std::string_view text) {
    if (!text_.empty()) text_ += separator_;
    text_ += text;
    after_needle_ = true;
  }
  void reserve(size_t bytes) { text_.reserve(bytes); }
  std::string take() { return std::move(text_); }

 private:
  const std::string& separator_;
  bool one_line_;
  std::string text_;
  bool after_needle_ = false;
};

// Bytes at the front of `text` that are its first tokens, `k` or as many fewer as make whole
// characters.
size_t bytes_of_tokens(std::string_view text, int64_t k, const Tokenizer& tokenizer) {
  const std::vector<int32_t> ids = tokenizer.encode(text);
  for (size_t n = std::min(static_cast<size_t>(k), ids.size()); n > 0; --n) {
    const std::string front = tokenizer.decode(std::span(ids).first(n));
    if (text.starts_with(front)) return front.size();
  }
  return 0;
}

}  // namespace

Sentence LineSource::next() {
  NeedleLine line = plan_.line(draws_);
  lines_.push_back("\n" + line.text);
  values_.push_back(std::move(line.value));
  return {lines_.back(), static_cast<int64_t>(tokenizer_.encode(lines_.back()).size())};
}

void NeedleContext::fill(int64_t tokens) {
  tokens = std::max<int64_t>(tokens, 0);
  while (ends_.back() <= tokens) {  // one more than fits
    all_.push_back(source_.next());
    ends_.push_back(ends_.back() + all_.back().tokens);
  }
  const auto beyond = std::upper_bound(ends_.begin(), ends_.end(), tokens);
  n_ = static_cast<size_t>(beyond - ends_.begin()) - 1;
  if (task_.place == NeedlePlace::kLine) {
    while (n_ > 0 && !all_[n_].text.starts_with('\n')) --n_;
  }
}

NeedleContext::Place NeedleContext::place_of(const Needle& needle) const {
  const int64_t at =
      std::clamp(static_cast<int64_t>(std::floor(needle.depth * static_cast<double>(tokens()))) +
                     needle.jitter,
                 int64_t{0}, tokens());
  const auto used = ends_.begin() + static_cast<int64_t>(n_) + 1;
  auto b = static_cast<size_t>(std::upper_bound(ends_.begin(), used, at) - ends_.begin()) - 1;
  if (task_.place == NeedlePlace::kLine) {
    while (b > 0 && b < n_ && !all_[b].text.starts_with('\n')) --b;
  }
  if (task_.place != NeedlePlace::kToken || b == n_) return {b, 0, ends_[b]};
  return {b, bytes_of_tokens(all_[b].text, at - ends_[b], tokenizer_), at};
}

NeedleContext::Planted NeedleContext::plant(bool leave_out_asked) const {
  std::vector<std::pair<Place, const Needle*>> needles;
  Planted planted;
  bool found = false;
  for (const Needle& needle : plan_.needles) {
    const Place place = place_of(needle);
    if (needle.asked && !found) {
      found = true;
      planted.depth = tokens() > 0
                          ? static_cast<double>(place.tokens) / static_cast<double>(tokens())
                          : needle.depth;
    }
    if (!needle.asked || !leave_out_asked) needles.emplace_back(place, &needle);
  }
  std::stable_sort(needles.begin(), needles.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  Joined text(task_.separator, task_.one_line);
  size_t bytes = 0;
  for (size_t i = 0; i < n_; ++i) bytes += all_[i].text.size();
  text.reserve(bytes + 200 * needles.size());
  auto next = needles.begin();
  for (size_t i = 0; i <= n_; ++i) {
    const std::string_view sentence = i < n_ ? all_[i].text : std::string_view();
    size_t done = 0;
    for (; next != needles.end() && next->first.sentence == i; ++next) {
      text.sentence(sentence.substr(done, next->first.byte - done));
      done = next->first.byte;
      text.needle(next->second->text);
    }
    text.sentence(sentence.substr(done));
  }
  planted.text = text.take();
  return planted;
}

}  // namespace tandem
