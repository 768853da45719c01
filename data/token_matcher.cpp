#include "data/token_matcher.h"

#include <algorithm>

namespace tandem {
namespace {

unsigned char byte_at(std::string_view text, size_t at) {
  return static_cast<unsigned char>(text[at]);
}

}  // namespace

TokenMatcher::TokenMatcher(const std::vector<std::string>& tokens) {
  for (size_t i = 0; i < tokens.size(); ++i) {
    sorted_.emplace_back(tokens[i], i);
    begins_[byte_at(tokens[i], 0)] = true;
  }
  std::sort(sorted_.begin(), sorted_.end());
  const auto equal = [](const auto& a, const auto& b) { return a.first == b.first; };
  sorted_.erase(std::unique(sorted_.begin(), sorted_.end(), equal), sorted_.end());
}

std::optional<TokenMatcher::Match> TokenMatcher::next(std::string_view text, size_t from) const {
  for (size_t begin = from; begin < text.size(); ++begin) {
    if (!begins_[byte_at(text, begin)]) continue;
    std::optional<Match> longest;
    auto low = sorted_.begin(), high = sorted_.end();  // those that agree with the text so far
    for (size_t length = 0; low != high; ++length) {
      if (low->first.size() == length) {  // the shortest comes first, and is alone of its length
        longest = {begin, length, low->second};
        ++low;
      }
      if (begin + length == text.size()) break;
      const unsigned char byte = byte_at(text, begin + length);
      low = std::lower_bound(low, high, byte, [&](const auto& entry, unsigned char b) {
        return byte_at(entry.first, length) < b;
      });
      high = std::upper_bound(low, high, byte, [&](unsigned char b, const auto& entry) {
        return b < byte_at(entry.first, length);
      });
    }
    if (longest) return longest;
  }
  return std::nullopt;
}

}  // namespace tandem
