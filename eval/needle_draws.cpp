#include "eval/needle_draws.h"

#include <fmt/format.h>

#include <span>
#include <stdexcept>
#include <string_view>

#include "eval/needle_names.h"
#include "eval/needle_words.h"

namespace tandem {
namespace {

std::string_view one_of(std::span<const std::string_view> words, Draws& draws) {
  return words[static_cast<size_t>(draws.below(static_cast<int64_t>(words.size())))];
}

std::string draw_uuid(Draws& draws) {
  const uint64_t high = (draws.bits() & ~uint64_t{0xf000}) | 0x4000;               // version 4
  const uint64_t low = (draws.bits() & ~(uint64_t{3} << 62)) | uint64_t{2} << 62;  // variant 10
  return fmt::format("{:08x}-{:04x}-{:04x}-{:04x}-{:012x}", high >> 32, high >> 16 & 0xffff,
                     high & 0xffff, low >> 48, low & 0xffffffffffff);
}

}  // namespace

std::string draw_word(WordKind kind, Draws& draws) {
  switch (kind) {
    case WordKind::kCity:
      return std::string(one_of(needle_cities(), draws));
    case WordKind::kAdjectiveNoun: {
      const std::string adjective(one_of(needle_adjectives(), draws));
      return adjective + "-" + std::string(one_of(needle_nouns(), draws));
    }
    case WordKind::kNumber:
      return std::to_string(1 + draws.below(50'000));
    case WordKind::kSevenDigits:
      return std::to_string(1'000'000 + draws.below(9'000'000));
    case WordKind::kTenDigits:
      return std::to_string(1'000'000'000 + draws.below(9'000'000'000));
    case WordKind::kUuid:
      return draw_uuid(draws);
  }
  throw std::logic_error("draw_word: no such kind");
}

bool DistinctWords::fits(const std::string& word) const {
  if (words_.contains(word)) return false;
  if (filler_) return true;
  for (const std::string& other : words_) {
    if (other.find(word) != std::string::npos || word.find(other) != std::string::npos)
      return false;
  }
  return true;
}

std::string DistinctWords::draw(WordKind kind, Draws& draws) {
  for (int attempt = 0; attempt < 10'000; ++attempt) {
    std::string word = draw_word(kind, draws);
    if (!fits(word)) continue;
    words_.insert(word);
    return word;
  }
  throw std::logic_error("DistinctWords: all words of a kind are taken");
}

}  // namespace tandem
