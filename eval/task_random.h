#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace tandem {

/// The numbers of Python's random.Random, so that few-shot examples are those that evaluations
/// written in Python draw: MT19937 (Matsumoto and Nishimura, 1998), seeded by the words of an
/// integer.
class PythonRandom {
 public:
  explicit PythonRandom(uint64_t seed);
  uint32_t bits(int n);            ///< getrandbits(n), n in 1..32
  uint64_t below(uint64_t bound);  ///< an integer in [0, bound); bound in 1..2^31
  /// The places that sample() takes from a list of `n`: `count` different ones, in the order drawn.
  std::vector<size_t> sample(size_t n, size_t count);

 private:
  uint32_t next();
  void refill();
  static constexpr size_t kWords = 624;
  std::array<uint32_t, kWords> words_;
  size_t at_ = kWords;
};

}  // namespace tandem
