#pragma once
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/config.h"
#include "nn/linear.h"
#include "nn/stack_factory.h"

namespace tandem {

/// The context is prefix_length vectors in front of the block's tokens (Block Transformer, sec. 2.4).
struct PrefixDecoderConfig {
  int64_t prefix_length = 2;
  Choice stack;  // layers with full attention: gpt_neox | transformer
  template <typename Visitor>
  void fields(Visitor& visit) {
    visit.value("prefix_length", prefix_length, at_least(1));
    visit.inline_choice(stack);
  }
};
/// The context is block_length vectors, added to the inputs (as MEGABYTE does).
struct SummationDecoderConfig {
  int64_t bos_id = 0;  // the input where no token of the block stands before
  Choice stack;
  template <typename Visitor>
  void fields(Visitor& visit) {
    visit.value("bos_id", bos_id, at_least(0));
    visit.inline_choice(stack);
  }
};
/// The context is block_length vectors that every layer attends to (T5's decoder: relative position bias, RMSNorm, ReLU, tied embeddings, no biases).
struct CrossAttentionDecoderConfig {
  int64_t bos_id = 1;
  int64_t d_model = 768;
  int64_t n_layers = 6;
  int64_t n_heads = 12;
  int64_t head_dim = 64;
  int64_t ffn_dim = 3072;
  double norm_eps = 1e-6;
  int64_t position_buckets = 32;       // of the relative position bias
  int64_t max_position_distance = 128;
  template <typename Visitor>
  void fields(Visitor& visit) {
    visit.value("bos_id", bos_id, at_least(0));
    visit.value("d_model", d_model, at_least(1));
    visit.value("n_layers", n_layers, at_least(1));
    visit.value("n_heads", n_heads, at_least(1));
    visit.value("head_dim", head_dim, at_least(1));
    visit.value("ffn_dim", ffn_dim, at_least(1));
    visit.value("norm_eps", norm_eps, above(0));
    visit.value("position_buckets", position_buckets, even());
    visit.value("max_position_distance", max_position_distance, at_least(1));
  }
  /// Distances that have no bucket of their own reach beyond those that have.
  void check(Checker& check) const;
};

/// What a token decoder is built for, beyond its own config.
struct TokenDecoderSpec {
  int64_t vocab_size = 0, block_length = 0;  // V, L
  int64_t d_context = 0;                     // H, of the block decoder
  bool official_generation_positions = false;  // begin() and step() rotate as the official generation does: all prefix vectors at 0, token j of the block at j + 1
};

/// What it carries from one token of a block to the next.
struct LocalState : State<LocalState> {};

/// The tokens of one block, given the context embedding of what came before it. Attention never leaves the block.
class TokenDecoder : public Module {
 public:
  /// Training and scoring. context: [M, H] of M blocks; tokens: [M, L - 1] int64, all but the last of each block; real: [M, L - 1] bool, padding is no key for others
  /// (undefined = all real). -> [M, L, D] after the final norm: entry j is what predicts token j of the block. Of `base` it takes what is not about positions.
  virtual Tensor forward(const Tensor& context, const Tensor& tokens, const Tensor& real, const ForwardContext& base) = 0;
  /// Begins a block of each row in inference. context: [B, H]; tokens: [B, n], 0 <= n < L, its first ones. -> [B, D], what predicts token n, and the state for step().
  virtual std::pair<Tensor, std::unique_ptr<LocalState>> begin(const Tensor& context, const Tensor& tokens, const StateShape& shape) = 0;
  /// The next token [B] -> [B, D], what predicts the one after it.
  virtual Tensor step(const Tensor& token, LocalState& state) = 0;
  /// [V, D]; logits are a product with it and nothing else.
  virtual const Tensor& head_weight() const = 0;
  /// Where ranks divide the vocabulary: the rows of head_weight() that this one holds.
  virtual HeldRows head_part() const = 0;
  virtual int64_t n_layers() const = 0;
  /// Multiply-adds times two of one block's context and first n inputs (tokens in front of which n predictions stand); without the head.
  virtual double forward_flops(int64_t n) const = 0;
  /// Bytes of a LocalState that holds n tokens, of one row.
  virtual int64_t state_bytes(int64_t n, torch::Dtype dtype) const = 0;
};

/// The table behind `token_decoder: {kind: ...}`: prefix, summation, cross_attention. `stacks` is the table of theirs and must outlive what is made of it.
std::vector<Option> token_decoder_options(std::span<const Option> stacks);
/// Parameters: embedding.weight [V, D], head.weight [V, D] (not with cross_attention, which ties it), expansion.{weight [r * D, H], bias [r * D]} with r = prefix_length or L,
/// vector k in rows k * D ..; and those of the layers: layers.N.*, final_norm.*. cross_attention: layers.N.{attention_norm.weight, {q,k,v,o}_proj.weight,
/// cross_norm.weight, cross_{q,k,v,o}_proj.weight, ffn_norm.weight, {up,down}_proj.weight}, position_bias.weight [position_buckets, n_heads].
std::shared_ptr<TokenDecoder> make_token_decoder(const Choice& choice, const TokenDecoderSpec& spec, const StackFactory& stacks);

}  // namespace tandem
