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

/// One rank of those that divide rows, and a pass over `batch` rows of `length` tokens in all.
struct SequencePass {
  int64_t ranks = 1, rank = 0;
  int64_t batch = 1, length = 0;
  int64_t element_size = 4;  // of activations
  int64_t tensor = 1;        // ranks that divide heads
  bool recompute = false;    // layers run twice
  int64_t tokens() const { return batch * (length / ranks); }              ///< of this rank
  int64_t wide() const { return element_size == 8 ? 8 : 4; }               ///< bytes of a state's element, and of a sum's
  int64_t passes() const { return recompute ? 2 : 1; }                     ///< forward
  int64_t heads(int64_t n) const { return n < tensor ? n : n / tensor; }   ///< of this rank
};
/// Bytes that rank sends to the others in a forward and a backward pass, by part.
struct SequenceBytes {
  std::vector<std::pair<std::string, double>> parts;
  double total() const {
    double sum = 0;
    for (const auto& [name, bytes] : parts) sum += bytes;
    return sum;
  }
};

}  // namespace tandem
