#include "data/token_matcher.h"

#include <gtest/gtest.h>

#include <random>

namespace tandem {
namespace {

// Against trying every token at every place.
TEST(TokenMatcherTest, FindsTheLeftmostAndOfThoseTheLongest) {
  std::mt19937 random(19);
  const auto letters = [&](size_t longest) {
    std::string text;
    for (size_t n = random() % longest + 1; n > 0; --n) text += "ab\xFF"[random() % 3];
    return text;
  };
  for (int round = 0; round < 500; ++round) {
    std::vector<std::string> tokens;
    for (auto n = random() % 9; n > 0; --n) tokens.push_back(letters(6));
    const TokenMatcher matcher(tokens);
    const std::string text = letters(40);
    const size_t from = random() % (text.size() + 1);
    std::optional<TokenMatcher::Match> expected;
    for (size_t begin = from; begin < text.size() && !expected; ++begin) {
      for (size_t i = 0; i < tokens.size(); ++i) {
        if (text.compare(begin, tokens[i].size(), tokens[i]) != 0) continue;
        if (!expected || tokens[i].size() > expected->length) {
          expected = {begin, tokens[i].size(), i};
        }
      }
    }
    const auto found = matcher.next(text, from);
    ASSERT_EQ(found.has_value(), expected.has_value());
    if (!found) continue;
    EXPECT_EQ(found->begin, expected->begin);
    EXPECT_EQ(found->length, expected->length);
    EXPECT_EQ(found->token, expected->token);  // of equal ones the first
  }
}

}  // namespace
}  // namespace tandem
