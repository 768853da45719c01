#pragma once
#include <memory>

#include "blocktf/token_decoder.h"

namespace tandem {

/// The decoder half of T5 (arXiv 1910.10683), with the expanded context in the place of an encoder's outputs. The official dropout of 0.1 in
/// training is left out.
std::shared_ptr<TokenDecoder> make_cross_attention_decoder(const CrossAttentionDecoderConfig& config, const TokenDecoderSpec& spec);

/// T5's bucket of causal distances (query minus key, >= 0, any shape, int64): half of the buckets hold one distance each, the others grow
/// geometrically up to max_distance, and the last holds all that is farther.
Tensor causal_buckets(const Tensor& distances, int64_t n_buckets, int64_t max_distance);

}  // namespace tandem
