#include "data/unicode.h"

#include <gtest/gtest.h>
#include <utf8proc.h>

#include <string>

namespace tandem {
namespace {

bool is_surrogate(char32_t code) { return code >= 0xD800 && code < 0xE000; }

TEST(UnicodeTest, ReadsEveryCharacter) {
  for (char32_t code = 0; code < 0x110000; ++code) {
    if (is_surrogate(code)) continue;
    utf8proc_uint8_t bytes[4];
    const auto size = utf8proc_encode_char(static_cast<utf8proc_int32_t>(code), bytes);
    const Character character =
        next_character({reinterpret_cast<const char*>(bytes), static_cast<size_t>(size)});
    ASSERT_EQ(character.code, code);
    ASSERT_EQ(character.bytes, static_cast<size_t>(size));
  }
}

TEST(UnicodeTest, ACutCharacterIsOneByte) {
  for (const char* text : {"\xC3", "\xE2\x82", "\xF0\x9F\x98", "\x80", "\xFF"}) {
    const Character character = next_character(text);
    EXPECT_EQ(character.code, char32_t{0xFFFD});
    EXPECT_EQ(character.bytes, 1u);
  }
}

TEST(UnicodeTest, ClassesFollowTheCategoriesOfUtf8proc) {
  const CharClasses& classes = CharClasses::table();
  for (char32_t code = 0; code < 0x110000; ++code) {
    const std::string category = utf8proc_category_string(static_cast<utf8proc_int32_t>(code));
    const CharClass expected = category[0] == 'L'   ? CharClass::kLetter
                               : category[0] == 'N' ? CharClass::kNumber
                               : category[0] == 'Z' ? CharClass::kSpace
                                                    : CharClass::kOther;
    if (category[0] == 'C') continue;  // some control characters are space: below
    ASSERT_EQ(classes[code], expected) << std::hex << uint32_t{code};
  }
  for (unsigned char byte = 0; byte < 0x80; ++byte) {
    EXPECT_EQ(classes.ascii(byte), classes[byte]);
  }
  EXPECT_EQ(classes[0x110000], CharClass::kOther);  // beyond Unicode
}

TEST(UnicodeTest, ControlCharactersThatAreSpace) {
  const CharClasses& classes = CharClasses::table();
  std::string spaces;
  for (char32_t code = 0; code < 0xA0; ++code)
    if (classes[code] == CharClass::kSpace) spaces += static_cast<char>(code);
  EXPECT_EQ(spaces, "\t\n\v\f\r \x85");  // White_Space in Unicode's PropList.txt
}

}  // namespace
}  // namespace tandem
