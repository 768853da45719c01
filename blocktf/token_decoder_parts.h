#pragma once
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "blocktf/token_decoder.h"

namespace tandem {

// What the kinds of token decoders share.

/// Context [M, H] into n_vectors vectors of the token decoder's width, one after another: [M, n_vectors * D] (Block Transformer, sec. 2.4).
Linear make_expansion(const TokenDecoderSpec& spec, int64_t n_vectors, int64_t d_model);

/// Throws c10::Error unless the shapes are what TokenDecoder::forward takes.
void check_blocks(const TokenDecoderSpec& spec, const Tensor& context, const Tensor& tokens, const Tensor& real);
/// The same of TokenDecoder::begin.
void check_begin(const TokenDecoderSpec& spec, const Tensor& context, const Tensor& tokens);
/// Throws c10::Error where a state of n tokens takes no other: the last token of a block is fed to nobody.
void check_step(const TokenDecoderSpec& spec, int64_t n_tokens);

/// Throws UserError (2) unless the id that stands in front of a block is one of the vocabulary.
void check_bos(int64_t bos_id, const TokenDecoderSpec& spec);

/// What a state keeps beside keys and values is never narrower than float32, so that a narrow cache rounds nothing else.
inline int64_t kept_element_size(torch::Dtype dtype) { return static_cast<int64_t>(torch::elementSize(float_or_wider(dtype))); }

/// The inputs so far, all run again at each step: for decoders whose keys and values are not kept.
struct KeptInputs final : LocalState {
  Tensor context;  // [B, r, D], expanded, float32 or wider
  Tensor inputs;   // [B, n, D], embeddings, likewise
  LayerRunner* runner = nullptr;

  KeptInputs() = default;
  /// Of a block that begins, of any dtype.
  KeptInputs(const Tensor& first_context, const Tensor& first_inputs, const StateShape& shape);
  void append(const Tensor& x);  ///< x: [B, 1, D]
  std::unique_ptr<LocalState> select(const Tensor& rows) const override;
  std::vector<std::pair<std::string, Tensor>> tensors() const override { return {{"context", context}, {"inputs", inputs}}; }
};

}  // namespace tandem
