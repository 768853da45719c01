#pragma once
#include <array>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace tandem {

/// Finds tokens that are written out in a text: the leftmost one, and the longest of those that begin there.
class TokenMatcher {
 public:
  struct Match {
    size_t begin, length;  // bytes of the text
    size_t token;          // which of `tokens`
  };
  TokenMatcher() = default;
  /// None of `tokens` is empty; of equal ones the first is found.
  explicit TokenMatcher(const std::vector<std::string>& tokens);
  /// The first one that begins at `from` or later.
  std::optional<Match> next(std::string_view text, size_t from) const;

 private:
  std::vector<std::pair<std::string, size_t>> sorted_;  // and their places in `tokens`
  std::array<bool, 256> begins_{};                      // first bytes
};

}  // namespace tandem
