#pragma once
#include <cstddef>
#include <string>
#include <string_view>

namespace tandem {

/// Bytes of the character at the front of `text`, or 0 when no whole, valid UTF-8 character stands there (Unicode 15, table 3-7).
size_t utf8_length(std::string_view text);

/// Bytes at the front of `text` that are valid UTF-8: all of them when it is.
size_t valid_utf8_prefix(std::string_view text);

/// The text with what belongs to no valid character replaced: one U+FFFD for each maximal subpart (Unicode 15, section 3.9), as Python's
/// errors="replace" and browsers do. `changed` is set when there was one.
std::string valid_utf8(std::string_view text, bool* changed = nullptr);

inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";  // U+FFFD

}  // namespace tandem
