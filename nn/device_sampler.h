#pragma once
#include <cstdint>
#include <optional>
#include <vector>

#include "core/random.h"
#include "nn/parameter.h"

namespace tandem {

/// How the next token is chosen: temperature first, then top_k, then top_p among what top_k left.
struct SamplingConfig {
  double temperature = 1.0;  // 0 is greedy
  int64_t top_k = 0;         // 0 = all
  double top_p = 1.0;        // the fewest likeliest tokens whose probability reaches this (nucleus)
  uint64_t seed = 0;
  std::vector<int64_t> forbidden = {};  // ids never chosen (padding, BOS)
};

/// Draws tokens from logits on their device without host synchronisation. Row b's draw at call n
/// depends on (seed, row, n) only, so a batch draws what its rows would draw alone when `rows`
/// names them.
class DeviceSampler {
 public:
  /// `rows` are the numbers of the batch's rows in their random streams; empty: 0, 1, 2, ...
  DeviceSampler(const SamplingConfig& config, int64_t batch, torch::Device device,
                std::vector<int64_t> rows = {});
  virtual ~DeviceSampler() = default;
  /// logits: [B, V] -> ids [B] int64. Virtual, so that what a model asks of it can be watched.
  virtual Tensor sample(const Tensor& logits);
  /// Passes `calls` >= 0 calls over without drawing: the next sample() is the one after them.
  void skip(int64_t calls);

 private:
  Tensor next_uniforms();
  SamplingConfig config_;
  Tensor forbidden_;  // [n] int64 or undefined
  Tensor uniforms_;   // [kCallsAhead, B] float64, in [0, 1), of calls uniforms_from_ and on
  int64_t uniforms_from_ = -1;
  int64_t batch_;
  torch::Device device_;
  std::vector<RandomStream> streams_;  // of the rows
  int64_t calls_ = 0;
};

}  // namespace tandem
