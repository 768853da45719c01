#include "data/utf8.h"

#include <cstdint>
#include <cstring>

namespace tandem {
namespace {

/// What stands at the front of a text: a character, or the bytes that one U+FFFD replaces.
struct Front {
  size_t bytes = 0;
  bool valid = false;
};

/// Bytes that belong to no character go together as far as they could begin one (Unicode 15,
/// section 3.9, maximal subparts), as in Python and in browsers.
Front front_of(std::string_view text) {
  if (text.empty()) return {};
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = byte(0);
  if (first < 0x80) return {1, true};
  // The second byte's range keeps out overlong forms, surrogates and what lies above U+10FFFF.
  unsigned char low = 0x80, high = 0xBF;
  size_t length = 0;
  if (first >= 0xC2 && first <= 0xDF) {
    length = 2;
  } else if (first >= 0xE0 && first <= 0xEF) {
    length = 3;
    if (first == 0xE0) low = 0xA0;
    if (first == 0xED) high = 0x9F;
  } else if (first >= 0xF0 && first <= 0xF4) {
    length = 4;
    if (first == 0xF0) low = 0x90;
    if (first == 0xF4) high = 0x8F;
  }
  if (length == 0 || text.size() < 2 || byte(1) < low || byte(1) > high) return {1, false};
  for (size_t i = 2; i < length; ++i) {
    if (i == text.size() || (byte(i) & 0xC0) != 0x80) return {i, false};
  }
  return {length, true};
}

}  // namespace

size_t utf8_length(std::string_view text) {
  const Front front = front_of(text);
  return front.valid ? front.bytes : 0;
}

size_t valid_utf8_prefix(std::string_view text) {
  constexpr uint64_t kNotAscii = 0x8080808080808080;
  size_t i = 0;
  while (i < text.size()) {
    uint64_t eight = kNotAscii;
    if (text.size() - i >= sizeof eight) std::memcpy(&eight, text.data() + i, sizeof eight);
    if ((eight & kNotAscii) == 0) {
      i += sizeof eight;
      continue;
    }
    const size_t length = utf8_length(text.substr(i));
    if (length == 0) break;
    i += length;
  }
  return i;
}

std::string valid_utf8(std::string_view text, bool* changed) {
  std::string out;
  out.reserve(text.size());
  while (true) {
    const size_t valid = valid_utf8_prefix(text);
    out.append(text.substr(0, valid));
    text.remove_prefix(valid);
    if (text.empty()) return out;
    text.remove_prefix(front_of(text).bytes);
    out.append(kReplacementCharacter);
    if (changed != nullptr) *changed = true;
  }
}

}  // namespace tandem
