#pragma once
#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "core/random.h"

namespace tandem {

/// The numbers of a stream one after another.
class Draws {
 public:
  explicit Draws(RandomStream stream) : stream_(stream) {}
  uint64_t bits() { return stream_.bits(next_++); }
  double uniform() { return stream_.uniform(next_++); }
  int64_t below(int64_t n) {
    return static_cast<int64_t>(stream_.below(next_++, static_cast<uint64_t>(n)));
  }

 private:
  RandomStream stream_;
  uint64_t next_ = 0;
};

/// What needles are made of.
enum class WordKind {
  kCity,           // "Lima"
  kAdjectiveNoun,  // "quiet-harbor", RULER's words
  kNumber,         // 1 to 50000, YOCO
  kSevenDigits,    // 1000000 to 9999999
  kTenDigits,      // 1000000000 to 9999999999, a phone number
  kUuid,           // version 4
};
std::string draw_word(WordKind kind, Draws& draws);

/// Words of which none is part of another: to find one in an answer never means another. Throws
/// std::logic_error when a kind has not that many.
class DistinctWords {
 public:
  /// `filler`: the words are many (lines of a filler) and only kept from being equal, which is the
  /// same for kinds of one length.
  explicit DistinctWords(bool filler = false) : filler_(filler) {}
  std::string draw(WordKind kind, Draws& draws);
  void add(const std::string& word) { words_.insert(word); }

 private:
  bool fits(const std::string& word) const;
  bool filler_;
  std::set<std::string> words_;
};

}  // namespace tandem
