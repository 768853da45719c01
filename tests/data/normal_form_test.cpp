#include "data/normal_form.h"

#include <gtest/gtest.h>
#include <utf8proc.h>

#include <cstdlib>
#include <random>
#include <vector>

namespace tandem {
namespace {

std::string utf8(int32_t character) {
  utf8proc_uint8_t bytes[4];
  const auto n = utf8proc_encode_char(character, bytes);
  return {reinterpret_cast<const char*>(bytes), static_cast<size_t>(n)};
}

/// By utf8proc at once, without any shortcut.
std::string reference(const std::string& text) {
  utf8proc_uint8_t* out = nullptr;
  const auto n = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                              static_cast<utf8proc_ssize_t>(text.size()), &out,
                              static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  EXPECT_GE(n, 0);
  const std::string result(reinterpret_cast<const char*>(out), static_cast<size_t>(n));
  std::free(out);
  return result;
}

TEST(NormalFormTest, EveryCharacterAndEveryOneBehindALetterOrMark) {
  for (int32_t c = 1; c < 0x110000; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;  // surrogates
    if (c == 0x30000) c = 0xE0000;            // nothing in between, but more of the same
    if (c == 0xF0000) break;
    const std::string text = utf8(c) + "e" + utf8(c) + utf8(0x301) + utf8(c) + utf8(0x1100);
    const std::string expected = reference(text);
    ASSERT_EQ(nfc(text), expected) << c;
    ASSERT_TRUE(may_change_in_nfc(text) || expected == text) << c;
  }
}

TEST(NormalFormTest, RandomText) {
  std::mt19937 random(17);
  const std::vector<int32_t> starts = {
      0x20,  0x61,  0xC0,  0x1EA0, 0x300,  0x300,  0x323,  0x3B1,  0x400,  0x5B0,  0x64B,  0x915,
      0x9BE, 0xBC6, 0xE40, 0x1100, 0x1161, 0x11A7, 0x1B05, 0x304B, 0x3099, 0xAC00, 0xF900, 0x1D15E};
  for (int i = 0; i < 3000; ++i) {
    std::string text;
    for (auto n = random() % 40; n > 0; --n) {
      text += utf8(starts[random() % starts.size()] + static_cast<int32_t>(random() % 28));
    }
    const std::string expected = reference(text);
    ASSERT_EQ(nfc(text), expected);
    ASSERT_EQ(nfc(expected), expected);
    ASSERT_TRUE(may_change_in_nfc(text) || expected == text);
  }
}

TEST(NormalFormTest, TextThatPeopleWriteTakesTheShortcut) {
  for (const char* text :
       {"", "plain", "caf\xC3\xA9 \xC3\x85 \xE2\x80\x9Cquoted\xE2\x80\x9D \xE2\x82\xAC",
        "\xD0\xB6\xD0\xB4\xD1\x91\xD1\x82 \xD0\xB9", "\xCE\xAC\xCE\xB2",
        "\xE6\xB8\xA1\xE8\x88\xB9 \xE3\x81\x8C \xEA\xB0\x80", "\xF0\x9F\x91\x8D\xF0\x9F\x8F\xBD"}) {
    EXPECT_FALSE(may_change_in_nfc(text)) << text;
  }
  EXPECT_TRUE(may_change_in_nfc("e\xCC\x81"));
}

TEST(NormalFormTest, RunsOfMarksAreOrdered) {
  std::string marks, below, above;
  for (int i = 0; i < 20000; ++i) marks += "\xCC\x81\xCC\xA3";  // above, below
  for (int i = 0; i < 20000; ++i) {
    below += i == 0 ? "" : "\xCC\xA3";  // the first joins the letter: U+1E05
    above += "\xCC\x81";
  }
  EXPECT_EQ(nfc("b" + marks), "\xE1\xB8\x85" + below + above);
}

}  // namespace
}  // namespace tandem
