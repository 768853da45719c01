#pragma once
#include "nn/language_model.h"

namespace tandem {

/// Token NLL and its weighted sum from hidden states, without keeping whole float32 logits: tokens are taken in chunks, and each chunk's gradient is
/// formed in the forward pass. h: [B, T, D]; weight: [V, D] (the head, maybe tied); targets: [B, T] int64, -100 = not scored; weights: [B, T] float32 or
/// undefined. Log-softmax in float32 (float64 for float64). A target outside [0, V) that is not -100 is a c10::Error.
Loss cross_entropy(const Tensor& h, const Tensor& weight, const Tensor& targets, const Tensor& weights, int64_t chunk = 1024);

/// NLL only, no gradient: [B, T], NaN where not scored.
Tensor token_nll(const Tensor& h, const Tensor& weight, const Tensor& targets, int64_t chunk = 1024);

}  // namespace tandem
