#include "eval/task_random.h"

#include <bit>
#include <cmath>
#include <set>
#include <stdexcept>
#include <string>

namespace tandem {

PythonRandom::PythonRandom(uint64_t seed) {
  std::vector<uint32_t> key = {static_cast<uint32_t>(seed)};
  if (seed >> 32) key.push_back(static_cast<uint32_t>(seed >> 32));
  words_[0] = 19650218;
  const auto mixed = [&](size_t i, uint32_t factor) {  // word i with the one before it in it
    return words_[i] ^ ((words_[i - 1] ^ (words_[i - 1] >> 30)) * factor);
  };
  for (size_t i = 1; i < kWords; ++i)
    words_[i] = 1812433253u * (words_[i - 1] ^ (words_[i - 1] >> 30)) + static_cast<uint32_t>(i);
  size_t i = 1;
  const auto advance = [&] {
    if (++i < kWords) return;
    words_[0] = words_[kWords - 1];
    i = 1;
  };
  for (size_t k = 0; k < kWords; ++k) {  // the key is never longer
    const size_t j = k % key.size();
    words_[i] = mixed(i, 1664525u) + key[j] + static_cast<uint32_t>(j);
    advance();
  }
  for (size_t k = 1; k < kWords; ++k) {
    words_[i] = mixed(i, 1566083941u) - static_cast<uint32_t>(i);
    advance();
  }
  words_[0] = 0x80000000u;
}

void PythonRandom::refill() {
  for (size_t i = 0; i < kWords; ++i) {
    const uint32_t y = (words_[i] & 0x80000000u) | (words_[(i + 1) % kWords] & 0x7fffffffu);
    words_[i] = words_[(i + 397) % kWords] ^ (y >> 1) ^ (y & 1 ? 0x9908b0dfu : 0);
  }
  at_ = 0;
}

uint32_t PythonRandom::next() {
  if (at_ == kWords) refill();
  uint32_t y = words_[at_++];
  y ^= y >> 11;
  y ^= (y << 7) & 0x9d2c5680u;
  y ^= (y << 15) & 0xefc60000u;
  return y ^ (y >> 18);
}

uint32_t PythonRandom::bits(int n) { return next() >> (32 - n); }

uint64_t PythonRandom::below(uint64_t bound) {
  const int width = static_cast<int>(std::bit_width(bound));
  uint64_t drawn = bits(width);
  while (drawn >= bound) drawn = bits(width);
  return drawn;
}

std::vector<size_t> PythonRandom::sample(size_t n, size_t count) {
  if (count > n)
    throw std::logic_error("PythonRandom: a sample of " + std::to_string(count) + " out of " +
                           std::to_string(n));
  // A copy of a short list is shuffled; of a long one places are drawn again that came before.
  double copied = 21;
  if (count > 5) copied += std::pow(4, std::ceil(std::log(count * 3.0) / std::log(4.0)));
  std::vector<size_t> result;
  if (static_cast<double>(n) <= copied) {
    std::vector<size_t> pool(n);
    for (size_t i = 0; i < n; ++i) pool[i] = i;
    for (size_t i = 0; i < count; ++i) {
      const size_t j = below(n - i);
      result.push_back(pool[j]);
      pool[j] = pool[n - i - 1];
    }
    return result;
  }
  std::set<size_t> taken;
  while (result.size() < count) {
    const size_t j = below(n);
    if (taken.insert(j).second) result.push_back(j);
  }
  return result;
}

}  // namespace tandem
