#pragma once
#include <string>
#include <string_view>

namespace tandem {

/// Whether normal form C may change `text`, valid UTF-8; false for nearly all text people write, found in one pass.
bool may_change_in_nfc(std::string_view text);

/// `text`, valid UTF-8, in normal form C (Unicode Standard Annex 15), by the tables of utf8proc: Unicode 15.0 with utf8proc 2.8. Tables of other versions, as those in tokenizers 0.23, which are older,
/// put 108 combining marks in another order where several follow one character. Time is linear, n log n in runs of combining marks.
std::string nfc(std::string_view text);

}  // namespace tandem
