#pragma once
#include <cstdint>
#include <optional>

#include "core/config_node.h"
#include "eval/inference_timing.h"

namespace tandem {

/// Bytes that inference takes.
struct InferenceMemory {
  double weights = 0, cache = 0;  // known from the shapes
  double rest = 0;                // activations and logits: an estimate
  double total() const { return weights + cache + rest; }
};

/// Of one batch: a prompt, and each step that adds a token to every row.
struct InferenceSeconds {
  double prefill = 0, decode_step = 0;
  double total(const InferenceLength& tokens) const {
    return prefill + static_cast<double>(tokens.generated) * decode_step;
  }
};

/// How fast a model was in a case that was measured.
struct Pace {
  int64_t length = 0;  // tokens of that case
  double prefill_flops_per_s = 0, decode_flops_per_s = 0;
};

/// What a device does at most.
struct Peaks {
  double flops = 0, bytes_per_s = 0;
};

/// What follows from a model's shapes; it may be without storage, and is never run.
class InferenceCost {
 public:
  /// `config`: of the whole run. Types: of weights and activations, of keys and values held.
  InferenceCost(const LanguageModel& model, const ConfigNode& config, torch::Dtype dtype,
                torch::Dtype cache_dtype);

  InferenceMemory memory(const InferenceLength& tokens, int64_t rows, int64_t prefill_chunk) const;
  /// The most rows whose memory() is at most `bytes`; 0 where not even one fits.
  int64_t rows_within(double bytes, const InferenceLength& tokens, int64_t prefill_chunk) const;

  StateBytes cache(int64_t length) const;
  /// That one more token of context adds to a row, far beyond every window.
  double cache_bytes_per_token() const { return bytes_per_token(cache_dtype_); }
  Flops prefill_flops(const InferenceLength& tokens, int64_t rows) const;
  /// Of one generated token of one row, amid the generated ones.
  Flops decode_flops(const InferenceLength& tokens) const;
  /// Of the weights that a prompt's tokens meet, read once.
  double prefill_bytes(const InferenceLength& tokens) const;
  /// Read, or written, in a step that adds a token to every row: the weights once, each row's
  /// state, and its keys and values as often as layers look at them.
  double decode_bytes(const InferenceLength& tokens, int64_t rows) const;

  /// Each FLOP as fast as where the pace was taken.
  InferenceSeconds at_pace(const Pace& pace, const InferenceLength& tokens, int64_t rows) const;
  Pace pace_of(const InferenceSeconds& taken, const InferenceLength& tokens, int64_t rows) const;
  /// The least that a device of these peaks needs: no implementation is faster.
  InferenceSeconds at_peak(const Peaks& peaks, const InferenceLength& tokens, int64_t rows) const;

 private:
  double bytes_per_token(torch::Dtype cache_dtype) const;

  const LanguageModel& model_;
  torch::Dtype cache_dtype_;
  int64_t element_size_;  // bytes of a weight or activation
  double weight_bytes_ = 0;
  int64_t widest_ = 0;          // activations of a token, the logits left out
  double queries_per_key_ = 1;  // heads that share a key
};

}  // namespace tandem
