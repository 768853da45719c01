#include "data/unicode.h"

#include <utf8proc.h>

#include <map>

namespace tandem {
namespace {

CharClass class_of(char32_t code) {
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(code))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
      return CharClass::kLetter;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
      return CharClass::kNumber;
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
      return CharClass::kSpace;
    default:  // White_Space is category Z and six control characters
      return (code >= '\t' && code <= '\r') || code == 0x85 ? CharClass::kSpace : CharClass::kOther;
  }
}

}  // namespace

CharClasses::CharClasses() {
  std::map<std::vector<CharClass>, uint16_t> known;
  for (char32_t begin = 0; begin < kCodePoints; begin += kBlock) {
    std::vector<CharClass> block(kBlock);
    for (char32_t i = 0; i < kBlock; ++i) block[i] = class_of(begin + i);
    const auto [found, added] = known.emplace(block, static_cast<uint16_t>(known.size()));
    if (added) classes_.insert(classes_.end(), block.begin(), block.end());
    block_of_[begin / kBlock] = found->second;
  }
}

const CharClasses& CharClasses::table() {
  static const CharClasses classes;
  return classes;
}

}  // namespace tandem
