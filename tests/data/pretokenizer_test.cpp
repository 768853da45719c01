#include "data/pretokenizer.h"

#include <gtest/gtest.h>
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "data/unicode.h"

namespace tandem {
namespace {

struct Spelling {
  const char* regex;
  SplitPattern pattern;
};

constexpr char kGpt2Plain[] =
    R"('(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr char kCl100kPlain[] =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr char kQwenPlain[] =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
// tiktoken 0.14, tiktoken_ext/openai_public.py. It keeps white space at the end of the text whole.
constexpr char kCl100kOf014[] =
    R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s)";

// Where each was published: see data/pretokenizer.cpp.
const Spelling kSpellings[] = {
    {kGpt2Plain, SplitPattern::kGpt2},
    {R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)",
     SplitPattern::kGpt2},
    {R"('s|'t|'re|'ve|'m|'ll|'d| ?[\p{L}]+| ?[\p{N}]+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)",
     SplitPattern::kGpt2},
    {R"('(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s)",
     SplitPattern::kGpt2},
    {kCl100kPlain, SplitPattern::kCl100k},
    {R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+)",
     SplitPattern::kCl100k},
    {kQwenPlain, SplitPattern::kQwen},
};
constexpr SplitPattern kPatterns[] = {SplitPattern::kGpt2, SplitPattern::kCl100k,
                                      SplitPattern::kQwen};

/// A regular expression of PCRE2, with Unicode classes.
class Regex {
 public:
  explicit Regex(const char* pattern) {
    int error = 0;
    size_t at = 0;
    code_.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern), PCRE2_ZERO_TERMINATED,
                              PCRE2_UTF | PCRE2_UCP | PCRE2_ANCHORED, &error, &at, nullptr));
    if (!code_) throw std::runtime_error("pcre2_compile failed");
    match_.reset(pcre2_match_data_create_from_pattern(code_.get(), nullptr));
  }
  /// Bytes that match at the front of `text`.
  size_t length(std::string_view text) const {
    const int groups = pcre2_match(code_.get(), reinterpret_cast<PCRE2_SPTR>(text.data()),
                                   text.size(), 0, 0, match_.get(), nullptr);
    return groups < 1 ? 0 : pcre2_get_ovector_pointer(match_.get())[1];
  }

 private:
  struct Free {
    void operator()(pcre2_code* code) const { pcre2_code_free(code); }
    void operator()(pcre2_match_data* match) const { pcre2_match_data_free(match); }
  };
  std::unique_ptr<pcre2_code, Free> code_;
  std::unique_ptr<pcre2_match_data, Free> match_;
};

void expect_equal_everywhere(const Regex& regex, const Spelling& spelling, std::string_view text) {
  for (size_t at = 0; at < text.size(); at += next_character(text.substr(at)).bytes) {
    const std::string_view rest = text.substr(at);
    ASSERT_EQ(pretoken_length(spelling.pattern, rest), regex.length(rest))
        << spelling.regex << " at the front of \"" << testing::PrintToString(rest) << '"';
  }
}

std::vector<std::string> pretokens(SplitPattern pattern, std::string_view text) {
  std::vector<std::string> parts;
  while (!text.empty()) {
    const size_t length = pretoken_length(pattern, text);
    parts.emplace_back(text.substr(0, length));
    text.remove_prefix(length);
  }
  return parts;
}

using Parts = std::vector<std::string>;

TEST(PretokenizerTest, KnowsThePublishedSpellings) {
  for (const Spelling& spelling : kSpellings)
    EXPECT_EQ(pattern_of_regex(spelling.regex), spelling.pattern) << spelling.regex;
  EXPECT_STREQ(regex_of(SplitPattern::kGpt2), kGpt2Plain);
  EXPECT_STREQ(regex_of(SplitPattern::kCl100k), kCl100kPlain);
  EXPECT_STREQ(regex_of(SplitPattern::kQwen), kQwenPlain);
}

TEST(PretokenizerTest, KnowsNoOtherSpelling) {
  EXPECT_EQ(pattern_of_regex(""), std::nullopt);
  EXPECT_EQ(pattern_of_regex(R"(\s+)"), std::nullopt);
  EXPECT_EQ(pattern_of_regex(std::string(kGpt2Plain) + "|x"), std::nullopt);
  EXPECT_EQ(pattern_of_regex(std::string(kQwenPlain).substr(1)), std::nullopt);
  EXPECT_EQ(pattern_of_regex(kCl100kOf014), std::nullopt);  // engines do not agree on {1,3}+
}

const char* const kHardCases[] = {
    "it's we'll I'VE they'Re 'd 'm 'T'S don'tx 'lL 'Ll 'rE 'vE 'x ''s 's's 'l 'v 'r '",
    "it'\u017F '\u017Fx a'\u017Fb '\uFB06 '\u00DF \u212A'\u212A",  // long s, st, sharp s, Kelvin
    "1 12 123 1234 12345 123456 1234567 x1 1x 1.5 -3 \u00BD\u0663\u0664\u0665\u0666 \u2163\u3007",
    "a\r\nb\n\rc\r\r\n\nd \r\n e\n \r f\t\n\tg\r",
    "a  b   c    d",
    "a \n b\n  c  \n\n  d \n",
    "  ",
    "x   ",
    "x \n ",
    "x\n\n\n",
    "x \n\n  \t",
    " \n",
    "\u00A0a \u00A0 b\u00A0\u00A0c \u00A0",
    "a\u2028b\u2029 c\u2028\u2028",
    "a\u0085b \u0085 c\u0085",
    "a\u1680b \u1680\u1680c\u1680 ",
    "\u2000\u2003x\u202F5\u205F!\u3000\u3000\u65E5",
    "e\u0301a\u0300\u0301 \u0301x \u0301 1\u0301 \u093F\u0915\u093F",
    "\U0001F469\u200D\U0001F469\u200D\U0001F467\U0001F3FD \U0001F600! \u2764\uFE0Fx",
    "\u4F60\u597D\uFF0C\u4E16\u754C\u3002 \u65E5\u672C\u8A9E123\u3067\u3059 \uD55C\uAD6D\uC5B4",
    "\u0645\u0631\u062D\u0628\u0627 \u0627\u0644\u0639\u064E\u0631\u064E\u0628 \u0661\u0662\u0663",
    "\u0E2A\u0E27\u0E31\u0E2A\u0E14\u0E35 \u0E04\u0E23\u0E31\u0E1A \u0E51\u0E52\u0E53\u0E54",
    "if (x != 0) {\n\treturn  y->z;  // done...\n}\n\n#define A_B 0x1F\r\n",
    "!!!\n\n???\r\n \n...\n x !\r\r\n",
    "\tx \t\ty\v\f z_1 __init__ $5 \u20AC5,00",
};

TEST(PretokenizerTest, EqualsEachRegexOnHardCases) {
  for (const Spelling& spelling : kSpellings) {
    const Regex regex(spelling.regex);
    for (const char* text : kHardCases) expect_equal_everywhere(regex, spelling, text);
  }
}

/// Text of characters that the patterns treat in some special way.
std::string troublesome(std::mt19937& random) {
  static const char* const kCharacters[] = {
      "'",      "'",      "s",      "S",      "t",          "l",      "L",          "re",
      "vE",     "d",      "m",      "a",      "Z",          "\u017F", "\u00E9",     "\u0436",
      "\u4E16", "\u0E2A", "\u0627", "0",      "7",          "\u0663", "\u00BD",     "\u2163",
      " ",      " ",      " ",      "\n",     "\n",         "\r",     "\t",         "\v",
      "\u0085", "\u00A0", "\u1680", "\u2028", "\u3000",     ".",      "!",          "_",
      "\u0301", "\u200D", "\uFE0F", "\u3002", "\U0001F600", "\u20AC", "\U00020000", "\U0001D7D8",
  };
  std::string text;
  for (size_t left = 1 + random() % 14; left > 0; --left)
    text += kCharacters[random() % std::size(kCharacters)];
  return text;
}

TEST(PretokenizerTest, EqualsEachRegexOnRandomText) {
  for (const Spelling& spelling : kSpellings) {
    const Regex regex(spelling.regex);
    std::mt19937 random(1);
    for (int i = 0; i < 3000; ++i) expect_equal_everywhere(regex, spelling, troublesome(random));
  }
}

// The spelling that is not taken differs in nothing but white space at the end.
TEST(PretokenizerTest, EqualsTheLatestCl100kUpToTheWhiteSpaceAtTheEnd) {
  const Regex regex(kCl100kOf014);
  const Spelling spelling = {kCl100kOf014, SplitPattern::kCl100k};
  std::mt19937 random(2);
  for (int i = 0; i < 3000; ++i)
    expect_equal_everywhere(regex, spelling, troublesome(random) + "x");
  EXPECT_EQ(regex.length("\n "), 2u);
  EXPECT_EQ(pretoken_length(SplitPattern::kCl100k, "\n "), 1u);
}

// As tiktoken 0.14 and tokenizers 0.23 cut them.
TEST(PretokenizerTest, CutsAsTheLibrariesDo) {
  EXPECT_EQ(pretokens(SplitPattern::kGpt2, "Hello  world, it's 12345\n\n x "),
            (Parts{"Hello", " ", " world", ",", " it", "'s", " 12345", "\n\n", " x", " "}));
  EXPECT_EQ(pretokens(SplitPattern::kGpt2, "IT'S"), (Parts{"IT", "'", "S"}));
  EXPECT_EQ(
      pretokens(SplitPattern::kCl100k, "IT'Sx it'\u017Fx 12345678\n\n  y"),
      (Parts{"IT", "'S", "x", " it", "'\u017F", "x", " ", "123", "456", "78", "\n\n", " ", " y"}));
  EXPECT_EQ(pretokens(SplitPattern::kCl100k, "(foo) bar!\r\n a \n \n b"),
            (Parts{"(foo", ")", " bar", "!\r\n", " a", " \n \n", " b"}));
  EXPECT_EQ(pretokens(SplitPattern::kQwen, "a 123"), (Parts{"a", " ", "1", "2", "3"}));
}

// Unicode took U+180E out of White_Space in version 6.3. PCRE2 10.42 still has it in \s; tiktoken
// and Hugging Face's library have not.
TEST(PretokenizerTest, TheMongolianVowelSeparatorIsNoSpace) {
  EXPECT_EQ(pretokens(SplitPattern::kCl100k, "a \u180E b"), (Parts{"a", " \u180E", " b"}));
}

TEST(PretokenizerTest, DamagedTextIsCutWithinItsBounds) {
  std::mt19937 random(3);
  for (int i = 0; i < 2000; ++i) {
    std::vector<char> bytes(1 + random() % 9);  // a vector, so that the sanitizer sees its end
    for (char& byte : bytes) byte = static_cast<char>(random() % 3 ? 0x80 + random() % 128 : ' ');
    for (const SplitPattern pattern : kPatterns) {
      const size_t length = pretoken_length(pattern, {bytes.data(), bytes.size()});
      ASSERT_GE(length, 1u);
      ASSERT_LE(length, bytes.size());
    }
  }
}

TEST(PretokenizerTest, EmptyTextHasNoPretoken) {
  EXPECT_THROW(pretoken_length(SplitPattern::kGpt2, ""), std::logic_error);
}

}  // namespace
}  // namespace tandem
