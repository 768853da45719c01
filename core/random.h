#pragma once
#include <array>
#include <cstdint>
#include <string_view>

namespace tandem {

// Counted random numbers: a draw is a pure function of who asks for what, so recomputing, resuming and another number of
// ranks all see the same numbers. Philox 4x32-10 (Salmon et al., SC 2011).

/// The ten rounds: 128 random bits from a counter and a key. Known answers are in the test.
std::array<uint32_t, 4> philox(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

/// A 64-bit name for a purpose ("init", "sampling", "shuffle"), fixed for ever (FNV-1a).
constexpr uint64_t purpose_id(std::string_view name) {
  uint64_t h = 14695981039346656037ull;
  for (char c : name) h = (h ^ static_cast<unsigned char>(c)) * 1099511628211ull;
  return h;
}

/// One stream of numbers, random access by index. Copies are free and equal. Streams of different (seed, step, forks) have
/// different keys, up to chance on 64 bits; how is at the top of random.cpp.
class RandomStream {
 public:
  RandomStream() = default;
  /// The root stream of a run: `seed` from the config, `step` the optimizer step (0 outside training).
  explicit RandomStream(uint64_t seed, uint64_t step = 0);
  /// A stream of its own for a purpose, a sample, a layer: fork("dropout").fork(sample).fork(layer).
  RandomStream fork(std::string_view purpose) const { return fork(purpose_id(purpose)); }
  RandomStream fork(uint64_t number) const;

  std::array<uint32_t, 4> block(uint64_t index) const;  ///< 128 bits
  uint64_t bits(uint64_t index) const;
  double uniform(uint64_t index) const;                 ///< [0, 1), 53 bits
  double normal(uint64_t index) const;                  ///< standard normal, Box-Muller on one block
  uint64_t below(uint64_t index, uint64_t n) const;     ///< uniform in [0, n), n >= 1, by 128-bit multiplication
  std::array<uint32_t, 2> key() const { return key_; }

 private:
  std::array<uint32_t, 2> key_{};
};

/// A permutation of [0, n) computed element by element: a 4-round Feistel network over the next even power of two with
/// cycle walking. No table, so a data set of any size is shuffled for free.
class Permutation {
 public:
  Permutation(uint64_t n, RandomStream stream);
  uint64_t operator()(uint64_t i) const;  ///< i < n

 private:
  static constexpr uint32_t kFewestHalfBits = 4;  // below 256 numbers four rounds on fewer bits are visibly uneven
  uint64_t n_;
  uint32_t half_bits_;
  RandomStream stream_;
};

}  // namespace tandem
