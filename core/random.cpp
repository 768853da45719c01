#include "core/random.h"

#include <cmath>
#include <numbers>
#include <stdexcept>
#include <string>

// How streams are kept apart. A stream is a 64-bit Philox key. Philox is a bijection of its 128-bit
// counter for each key, and every use of it below has counters of its own:
//   root      key kRootKey     counter (seed, step)      -> key of the stream
//   fork      key of parent    counter (number, kFork)   -> key of the child
//   draw      key of stream    counter (index, kDraw)    -> 128 random bits
// So a child's key is never one of its parent's draws, the order of forks matters, and two streams
// of different (seed, step, forks) are equal only if 64 random bits are: for n streams with
// probability about n^2 / 2^65, 3e-8 for a million.

namespace tandem {
namespace {

constexpr uint32_t kDraw = 0, kFork = 1;

constexpr uint32_t low(uint64_t x) { return static_cast<uint32_t>(x); }
constexpr uint32_t high(uint64_t x) { return static_cast<uint32_t>(x >> 32); }
constexpr uint64_t join(uint32_t lower, uint32_t upper) { return uint64_t{upper} << 32 | lower; }
constexpr std::array<uint32_t, 2> kRootKey = {low(purpose_id("root")), high(purpose_id("root"))};

}  // namespace

std::array<uint32_t, 4> philox(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  constexpr uint64_t kMultiplier0 = 0xd2511f53, kMultiplier1 = 0xcd9e8d57;
  constexpr uint32_t kWeyl0 = 0x9e3779b9, kWeyl1 = 0xbb67ae85;  // golden ratio, sqrt(3) - 1
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = kMultiplier0 * counter[0], p1 = kMultiplier1 * counter[2];
    counter = {high(p1) ^ counter[1] ^ key[0], low(p1), high(p0) ^ counter[3] ^ key[1], low(p0)};
    key[0] += kWeyl0, key[1] += kWeyl1;
  }
  return counter;
}

RandomStream::RandomStream(uint64_t seed, uint64_t step) {
  const auto words = philox({low(seed), high(seed), low(step), high(step)}, kRootKey);
  key_ = {words[0], words[1]};
}

RandomStream RandomStream::fork(uint64_t number) const {
  const auto words = philox({low(number), high(number), kFork, 0}, key_);
  RandomStream child;
  child.key_ = {words[0], words[1]};
  return child;
}

std::array<uint32_t, 4> RandomStream::block(uint64_t index) const {
  return philox({low(index), high(index), kDraw, 0}, key_);
}

uint64_t RandomStream::bits(uint64_t index) const {
  const auto words = block(index);
  return join(words[0], words[1]);
}

double RandomStream::uniform(uint64_t index) const {
  return static_cast<double>(bits(index) >> 11) * 0x1p-53;
}

double RandomStream::normal(uint64_t index) const {
  const auto words = block(index);
  // (0, 1], so that the logarithm is finite; the farthest value is 8.6
  const double radius = static_cast<double>((join(words[0], words[1]) >> 11) + 1) * 0x1p-53;
  const double angle = static_cast<double>(join(words[2], words[3]) >> 11) * 0x1p-53;
  return std::sqrt(-2 * std::log(radius)) * std::cos(2 * std::numbers::pi * angle);
}

uint64_t RandomStream::below(uint64_t index, uint64_t n) const {
  if (n == 0) throw std::logic_error("RandomStream::below: n = 0, expected at least 1");
  __extension__ using uint128_t = unsigned __int128;
  return static_cast<uint64_t>(uint128_t{bits(index)} * n >> 64);
}

Permutation::Permutation(uint64_t n, RandomStream stream)
    : n_(n), half_bits_(kFewestHalfBits), stream_(stream.fork("permutation")) {
  if (n == 0) throw std::logic_error("Permutation: n = 0, expected at least 1");
  while (half_bits_ < 32 && (uint64_t{1} << (2 * half_bits_)) < n) ++half_bits_;
}

uint64_t Permutation::operator()(uint64_t i) const {
  if (i >= n_) {
    throw std::logic_error("Permutation: i = " + std::to_string(i) + ", expected below " +
                           std::to_string(n_));
  }
  const uint32_t mask = low((uint64_t{1} << half_bits_) - 1);
  do {  // cycle walking: the orbit of i comes back to i, so it meets a number below n
    uint32_t left = low(i >> half_bits_) & mask, right = low(i) & mask;
    for (uint32_t round = 0; round < 4; ++round) {
      const uint32_t mixed = left ^ (stream_.block(join(right, round))[0] & mask);
      left = right;
      right = mixed;
    }
    i = uint64_t{left} << half_bits_ | right;
  } while (i >= n_);
  return i;
}

}  // namespace tandem
