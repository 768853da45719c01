#pragma once
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "core/config.h"
#include "nn/forward_context.h"

namespace tandem {

/// A table of token vectors; the vectors of a block are laid end to end, or projected (Block Transformer, sec. 2.2).
struct LookupEmbedderConfig {
  std::optional<int64_t> d_embed;  // of a token; absent: d_model / block_length with concat, d_model with projection
  std::string combine = "concat";  // concat | projection
  bool projects() const { return combine == "projection"; }
  /// d_embed or what stands for it.
  int64_t width(int64_t block_length, int64_t d_model) const { return d_embed.value_or(projects() ? d_model : d_model / block_length); }
  template <typename Visitor>
  void fields(Visitor& visit) {
    visit.optional("d_embed", d_embed, at_least(1));
    visit.one_of("combine", combine, {"concat", "projection"});
  }
};

/// A bidirectional encoder of RoBERTa's kind over the tokens of one block: learned positions, norms after the residuals, exact GELU, biases.
struct EncoderConfig {
  int64_t d_embed = 256;  // its width
  int64_t n_layers = 3;
  int64_t n_heads = 8;
  std::optional<int64_t> head_dim;  // absent: d_embed / n_heads
  int64_t ffn_dim = 1024;
  double norm_eps = 1e-5;
  int64_t max_positions = 514;  // rows of the position table: at least the tokens of a block (with CLS) + 2
  int64_t channels_per_head() const { return head_dim.value_or(d_embed / n_heads); }
  template <typename Visitor>
  void fields(Visitor& visit) {
    visit.value("d_embed", d_embed, at_least(1));
    visit.value("n_layers", n_layers, at_least(1));
    visit.value("n_heads", n_heads, at_least(1));
    visit.optional("head_dim", head_dim, at_least(1));
    visit.value("ffn_dim", ffn_dim, at_least(1));
    visit.value("norm_eps", norm_eps, above(0));
    visit.value("max_positions", max_positions, at_least(3));
  }
  void check(Checker& check) const;
};

/// All hidden states of the encoder, projected.
struct EncoderEmbedderConfig : EncoderConfig {};
/// Those of the CLS tokens in front, projected; the block may have any length.
struct ClsEmbedderConfig : EncoderConfig {
  int64_t n_cls = 3;
  template <typename Visitor>
  void fields(Visitor& visit) {
    visit.value("n_cls", n_cls, at_least(1));
    EncoderConfig::fields(visit);
  }
};

/// What an embedder is built for, beyond its own config.
struct EmbedderSpec {
  int64_t vocab_size = 0, block_length = 0;
  int64_t d_model = 0;  // H, of the block decoder
};

/// The tokens of a block into one block embedding.
class Embedder : public Module {
 public:
  /// tokens: [..., L] int64; real: [..., L] bool, false = padding (whose token is embedded all the same); undefined = all real. -> [..., H]
  virtual Tensor forward(const Tensor& tokens, const Tensor& real, const ForwardContext& context) = 0;
  /// Multiply-adds times two of n blocks.
  virtual double forward_flops(double n_blocks) const = 0;
};

/// The table behind `embedder: {kind: ...}`: lookup, encoder, cls.
std::span<const Option> embedder_options();
/// Parameters. lookup: embedding.weight [V, E], projection.{weight [H, L * E], bias} with combine: projection, input column t * E + c being channel c of token t.
/// encoder, cls: embedding.weight [V, E], position_embedding.weight [max_positions, E], type_embedding.weight [1, E], norm.{weight,bias},
/// layers.N.{q,k,v,o}_proj.{weight,bias}, layers.N.attention_norm, layers.N.{up,down}_proj, layers.N.ffn_norm, projection.{weight [H, L * E or n_cls * E], bias}.
/// Throws c10::Error where concat's d_embed * block_length is not d_model (check_embedder says it as a UserError).
std::shared_ptr<Embedder> make_embedder(const Choice& choice, const EmbedderSpec& spec);
/// The same rules on configs: what `choice` asks for fits block_length and d_model.
void check_embedder(const Checker& check, const Choice& choice, int64_t block_length, int64_t d_model);

}  // namespace tandem
