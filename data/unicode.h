#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace tandem {

/// What the patterns of data/pretokenizer tell apart: \p{L}, \p{N}, \s (Unicode's White_Space), and all else.
enum class CharClass : uint8_t { kOther, kLetter, kNumber, kSpace };

/// One character of a text.
struct Character {
  char32_t code;
  size_t bytes;
};

/// The character at the front of `text`, which is not empty and valid UTF-8. In text that is not, one byte may come out as U+FFFD, but nothing is read past the end.
inline Character next_character(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const auto low = [&](size_t i) { return static_cast<char32_t>(byte(i) & 0x3F); };
  const char32_t lead = byte(0);
  if (lead < 0x80) return {lead, 1};
  if (lead >= 0xC0 && lead < 0xE0 && text.size() >= 2) return {(lead & 0x1F) << 6 | low(1), 2};
  if (lead >= 0xE0 && lead < 0xF0 && text.size() >= 3) return {(lead & 0x0F) << 12 | low(1) << 6 | low(2), 3};
  if (lead >= 0xF0 && lead < 0xF5 && text.size() >= 4) return {(lead & 0x07) << 18 | low(1) << 12 | low(2) << 6 | low(3), 4};
  return {0xFFFD, 1};
}

/// The classes of all code points, as utf8proc has them: Unicode 15.0 with utf8proc 2.8. tiktoken 0.14 and tokenizers 0.23 have those of Unicode 16, where 5004 code points are letters
/// and numbers that are unassigned in 15.0 (CJK extension I, hieroglyphs, new scripts) and so kOther here; nothing else differs.
class CharClasses {
 public:
  static const CharClasses& table();  ///< made at the first call, in a few milliseconds
  CharClass operator[](char32_t code) const {
    const char32_t known = code < kCodePoints ? code : 0xFFFD;
    return classes_[static_cast<size_t>(block_of_[known / kBlock]) * kBlock + known % kBlock];
  }
  /// Of a byte below 0x80.
  CharClass ascii(unsigned char byte) const { return classes_[byte]; }

 private:
  CharClasses();
  static constexpr char32_t kCodePoints = 0x110000, kBlock = 256;
  std::array<uint16_t, kCodePoints / kBlock> block_of_;  // which of the blocks in classes_; the first holds ASCII
  std::vector<CharClass> classes_;                       // blocks that differ, one behind the other
};

}  // namespace tandem
