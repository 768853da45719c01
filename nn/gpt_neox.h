#pragma once
#include <memory>
#include <optional>
#include <string>

#include "nn/language_model.h"
#include "nn/layer_stack.h"
#include "nn/neox_layer.h"

namespace tandem {

/// GPT-NeoX layers in a row (Pythia): parallel residual, LayerNorm, exact GELU, rotary positions in a part of each head, biases.
struct NeoxStackConfig {
  int64_t d_model = 512;
  int64_t ffn_dim = 2048;
  double norm_eps = 1e-5;
  int64_t n_layers = 6;
  int64_t n_heads = 8;
  std::optional<int64_t> head_dim;  // absent: d_model / n_heads
  RopeConfig rope = {.fraction = 0.25};
  bool parallel_residual = true;    // false: attention, then feed-forward (GPT-2)
  std::string activation = "gelu";  // gelu | gelu_tanh (GPT-2)
  int64_t channels_per_head() const { return head_dim.value_or(d_model / n_heads); }
  template <typename Visitor>
  void fields(Visitor& visit) {
    visit.value("d_model", d_model, at_least(1));
    visit.value("ffn_dim", ffn_dim, at_least(1));
    visit.value("norm_eps", norm_eps, above(0));
    visit.value("n_layers", n_layers, at_least(1));
    visit.value("n_heads", n_heads, at_least(1));
    visit.optional("head_dim", head_dim, even());
    visit.section("rope", rope);
    visit.value("parallel_residual", parallel_residual);
    visit.one_of("activation", activation, {"gelu", "gelu_tanh"});
  }
  /// Heads of equal, even width; an even number of rotated channels.
  void check(Checker& check) const;
};

/// Modules: layers, final_norm.
std::shared_ptr<LayerStack> make_neox_stack(const NeoxStackConfig& config);

/// The baseline of the Block Transformer paper. GPT-2 is this with rope {base: none}, max_positions, one residual after the other, gelu_tanh and tied embeddings.
struct GptNeoxConfig : NeoxStackConfig {
  std::optional<int64_t> vocab_size;     // absent: the tokenizer's
  bool tie_embeddings = false;           // the head reads embedding.weight
  std::optional<int64_t> max_positions;  // learned positions, added to the embeddings; absent: none
  template <typename Visitor>
  void fields(Visitor& visit) {
    visit.optional("vocab_size", vocab_size, at_least(1));
    visit.value("tie_embeddings", tie_embeddings);
    visit.optional("max_positions", max_positions, at_least(1));
    NeoxStackConfig::fields(visit);
  }
};

/// The model on the meta device. Names: embedding.weight, position_embedding.weight (with max_positions), layers.N.{mixer_norm,mixer.{q,k,v,o}_proj,ffn_norm,
/// ffn.{up,down}_proj}.{weight,bias}, final_norm.{weight,bias}, head.weight (unless tied). Throws c10::Error while vocab_size is absent.
std::shared_ptr<LanguageModel> make_gpt_neox(const GptNeoxConfig& config);

}  // namespace tandem
