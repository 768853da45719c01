#pragma once
#include "nn/language_model.h"
#include "nn/tensor_parallel.h"

namespace tandem {

inline constexpr int64_t kLossChunk = 1024;  // tokens whose logits exist at once

/// Token NLL and its weighted sum from hidden states, without keeping whole float32 logits: tokens are taken in chunks, and each chunk's gradient is
/// formed in the forward pass. h: [B, T, D]; weight: [V, D] (the head, maybe tied); targets: [B, T] int64, -100 = not scored; weights: [B, T] float32 or
/// undefined. Log-softmax in float32 (float64 for float64). A target outside [0, V) that is not -100 is a c10::Error.
/// Where ranks divide the head, `weight` is this rank's `part` of it [v, D]: maxima, sums and the targets' logits go over the group chunk by chunk, the gradient of h in the end.
Loss cross_entropy(const Tensor& h, const Tensor& weight, const Tensor& targets, const Tensor& weights, int64_t chunk = kLossChunk, const HeldRows& part = {});

/// NLL only, no gradient: [B, T], NaN where not scored.
Tensor token_nll(const Tensor& h, const Tensor& weight, const Tensor& targets, int64_t chunk = kLossChunk, const HeldRows& part = {});

}  // namespace tandem
