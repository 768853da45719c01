#pragma once
#include <string>
#include <string_view>

namespace tandem {

/// Whether normal form C may change `text`, valid UTF-8; false for nearly all text people write, found in one pass.
bool may_change_in_nfc(std::string_view text);

/// `text`, valid UTF-8, in normal form C (Unicode Standard Annex 15), by the tables of utf8proc. Time is linear, n log n in runs of combining marks.
std::string nfc(std::string_view text);

}  // namespace tandem
