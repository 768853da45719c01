#include "data/utf8.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <random>

namespace tandem {
namespace {

/// The encoding of a code point, written from the definition (also of surrogates, which is
/// invalid).
std::string encoded(uint32_t c) {
  if (c < 0x80) return {static_cast<char>(c)};
  if (c < 0x800) return {static_cast<char>(0xC0 | c >> 6), static_cast<char>(0x80 | (c & 63))};
  if (c < 0x10000) {
    return {static_cast<char>(0xE0 | c >> 12), static_cast<char>(0x80 | (c >> 6 & 63)),
            static_cast<char>(0x80 | (c & 63))};
  }
  return {static_cast<char>(0xF0 | c >> 18), static_cast<char>(0x80 | (c >> 12 & 63)),
          static_cast<char>(0x80 | (c >> 6 & 63)), static_cast<char>(0x80 | (c & 63))};
}

std::string repaired(const std::string& text) {
  bool changed = false;
  const std::string out = valid_utf8(text, &changed);
  EXPECT_EQ(changed, out != text);
  EXPECT_EQ(valid_utf8_prefix(text) == text.size(), !changed);
  EXPECT_EQ(valid_utf8_prefix(out), out.size());
  return out;
}

TEST(Utf8Test, AcceptsWhatUnicodeDefinesAndNothingElse) {
  for (uint32_t c = 0; c <= 0x10FFFF; ++c) {
    const std::string s = encoded(c);
    const bool surrogate = c >= 0xD800 && c < 0xE000;
    ASSERT_EQ(utf8_length(s), surrogate ? 0 : s.size()) << c;
    if (s.size() > 1) {
      ASSERT_EQ(utf8_length(s.substr(0, s.size() - 1)), 0u) << c;
    }
  }
  for (const char* bad : {"\xC0\x80", "\xC1\xBF", "\xE0\x9F\xBF", "\xF0\x8F\xBF\xBF",
                          "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\x80", ""}) {
    EXPECT_EQ(utf8_length(bad), 0u);
  }
}

TEST(Utf8Test, ReplacesMaximalSubparts) {
  const std::string r(kReplacementCharacter);
  // The examples of Unicode 15, tables 3-8 to 3-11.
  EXPECT_EQ(repaired("\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41"), r + r + r + r + r + r + r + r + "A");
  EXPECT_EQ(repaired("\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41"), r + r + r + r + r + r + r + r + "A");
  EXPECT_EQ(repaired("\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42"),
            r + r + r + r + r + "A" + r + r + "B");
  EXPECT_EQ(repaired("\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41"), r + r + r + r + "A");
  // Cut off at the end: one for what is there.
  EXPECT_EQ(repaired("a\xF0\x9F\x98"), "a" + r);
  EXPECT_EQ(repaired("a\xE2\x82"), "a" + r);
  EXPECT_EQ(repaired("a\xC3"), "a" + r);
  EXPECT_EQ(repaired("\xF0\x9F\x98\x80 caf\xC3\xA9 \xE2\x82\xAC"),
            "\xF0\x9F\x98\x80 caf\xC3\xA9 \xE2\x82\xAC");
}

TEST(Utf8Test, RandomBytesAgreeWithADecoderOfOneByteAtATime) {
  // The decoder of the WHATWG Encoding Standard, section 8.1.1, which replaces by the same rule.
  const auto reference = [](const std::string& text) {
    std::string out, held;
    int needed = 0;
    unsigned low = 0x80, high = 0xBF;
    for (size_t i = 0; i <= text.size();) {
      const bool end = i == text.size();
      const unsigned byte = end ? 0 : static_cast<unsigned char>(text[i]);
      if (needed > 0) {
        if (end || byte < low || byte > high) {
          out += kReplacementCharacter;
          held.clear();
          needed = 0;
        } else {
          held += static_cast<char>(byte);
          if (--needed == 0) out += std::exchange(held, "");
          ++i;
        }
        low = 0x80, high = 0xBF;
        continue;
      }
      if (end) break;
      ++i;
      if (byte < 0x80) {
        out += static_cast<char>(byte);
        continue;
      }
      if (byte < 0xC2 || byte > 0xF4) {
        out += kReplacementCharacter;
        continue;
      }
      needed = byte < 0xE0 ? 1 : byte < 0xF0 ? 2 : 3;
      if (byte == 0xE0) low = 0xA0;
      if (byte == 0xED) high = 0x9F;
      if (byte == 0xF0) low = 0x90;
      if (byte == 0xF4) high = 0x8F;
      held = static_cast<char>(byte);
    }
    return out;
  };
  std::mt19937 random(5);
  constexpr unsigned char kBytes[] = {0x41, 0x20, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC2,
                                      0xDF, 0xE0, 0xE1, 0xED, 0xEF, 0xF0, 0xF1, 0xF4, 0xF5, 0xFF};
  for (int i = 0; i < 20000; ++i) {
    std::string text;
    for (size_t n = random() % 23; n > 0; --n)
      text += static_cast<char>(kBytes[random() % std::size(kBytes)]);
    ASSERT_EQ(repaired(text), reference(text)) << i;
  }
}

TEST(Utf8Test, AsciiInEightsEndsWhereItShould) {
  for (size_t n = 0; n < 41; ++n) {
    const std::string ascii(n, 'a');
    EXPECT_EQ(valid_utf8_prefix(ascii), n);
    EXPECT_EQ(valid_utf8_prefix(ascii + "\xFF" + ascii), n);
    EXPECT_EQ(valid_utf8_prefix(ascii + "\xC3\xA9" + ascii), 2 * n + 2);
  }
}

}  // namespace
}  // namespace tandem
