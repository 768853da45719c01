#pragma once
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace tandem {

enum class Phase { kTrain, kPrefill, kDecode };

/// Floating point operations by part; a multiply-add counts two. Elementwise work is left out.
struct Flops {
  std::vector<std::pair<std::string, double>> parts;  // "self_decoder", "shared_kv", "cross_decoder", "head"
  double total() const {
    double sum = 0;
    for (const auto& [name, flops] : parts) sum += flops;
    return sum;
  }
};

/// Bytes of state of one row, by part, without the spare room of its buffers.
struct StateBytes {
  std::vector<std::pair<std::string, int64_t>> parts;
  int64_t total() const {
    int64_t sum = 0;
    for (const auto& [name, bytes] : parts) sum += bytes;
    return sum;
  }
};

}  // namespace tandem
