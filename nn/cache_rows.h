#pragma once
#include "nn/parameter.h"

namespace tandem {

// How a cache holds the heads of keys and values: in a floating type as they are, or in kInt8 as one row for each head of a token, K codes -127 .. 127 and behind them
// the float32 scale that they are multiples of, the head's largest magnitude / 127. Each number is then off by at most half a scale, and no token's codes depend on another's.

/// Elements of `dtype` that a head of `head_dim` channels takes: head_dim, or in kInt8 head_dim rounded up to a multiple of 4 (what the scale's address asks for) and 4 more.
int64_t cache_row_width(int64_t head_dim, torch::Dtype dtype);
/// Bytes of keys and values of `n_heads` heads of one token.
int64_t cache_bytes_per_token(int64_t n_heads, int64_t head_dim, torch::Dtype dtype);

/// heads [..., K], of a floating type or held already -> [..., cache_row_width(K, dtype)] of `dtype`. What is not finite gives numbers that are not.
Tensor to_cache_rows(const Tensor& heads, torch::Dtype dtype);
/// rows [..., W] -> [..., head_dim] of the floating type `dtype`.
Tensor from_cache_rows(const Tensor& rows, int64_t head_dim, torch::Dtype dtype);
/// The same into `to` [..., K], of a floating type.
void copy_from_cache_rows(const Tensor& to, const Tensor& rows);

}  // namespace tandem
