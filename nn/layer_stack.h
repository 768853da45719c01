#pragma once
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/config.h"
#include "nn/decoder_layer.h"
#include "nn/decoder_stack.h"

namespace tandem {

/// The states of layers in a row, one each.
struct LayerStates {
  std::vector<std::unique_ptr<MixerState>> layers;

  LayerStates select(const Tensor& rows) const;
  /// "layers.N.mixer.NAME", with `prefix` in front.
  std::vector<std::pair<std::string, Tensor>> tensors(const std::string& prefix) const;
};

using Layers = std::vector<std::shared_ptr<Layer>>;
/// Llama-like, one for each mixer.
Layers make_decoder_layers(const std::vector<std::shared_ptr<TokenMixer>>& mixers, int64_t d_model, int64_t ffn_dim, double norm_eps);

/// Layers one after another, without a norm at the end. Modules: "0", "1", ...
class DecoderLayers : public Module {
 public:
  explicit DecoderLayers(Layers layers);
  /// x: [B, T, D] -> [B, T, D].
  Tensor forward(Tensor x, const ForwardContext& context, LayerStates* states);
  LayerStates make_states(const StateShape& shape) const;
  int64_t count() const { return static_cast<int64_t>(layers_.size()); }
  double forward_flops(Phase phase, int64_t length, int64_t batch) const;
  int64_t state_bytes(int64_t length, torch::Dtype dtype) const;
  /// As `part`; layers of full attention, which gather all keys and values each, are a part of their own.
  SequenceBytes sequence_bytes(const SequencePass& pass, const std::string& part) const;

 private:
  Layers layers_;
};

/// Of a stack whose layers all have full attention.
struct LayerStackConfig {
  int64_t d_model = 768;
  int64_t ffn_dim = 2048;             // inner width of SwiGLU
  double norm_eps = 1e-5;
  int64_t n_layers = 12;
  int64_t n_heads = 12;               // query heads
  std::optional<int64_t> n_kv_heads;  // key/value heads; absent: n_heads
  int64_t head_dim = 64;              // channels per head
  bool qkv_bias = false;              // of the projections to queries, keys and values
  std::optional<double> qk_norm_eps = {};  // epsilon of an RMS norm over each head of queries and keys, before rotary positions; none: no norm
  RopeConfig rope;
  template <typename Visitor>
  void fields(Visitor& visit) {
    visit.value("d_model", d_model, at_least(1));
    visit.value("ffn_dim", ffn_dim, at_least(1));
    visit.value("norm_eps", norm_eps, above(0));
    visit.value("n_layers", n_layers, at_least(1));
    visit.value("n_heads", n_heads, at_least(1));
    visit.optional("n_kv_heads", n_kv_heads, at_least(1));
    visit.value("head_dim", head_dim, even());
    visit.value("qkv_bias", qkv_bias);
    visit.optional_or_none("qk_norm_eps", qk_norm_eps, above(0));
    visit.section("rope", rope);
  }
  void check(Checker& check) const {
    check.divides("n_kv_heads", n_kv_heads.value_or(n_heads), "n_heads", n_heads);
    check_rope(check, rope, head_dim);
  }
};

/// Layers in a row and a norm: the plain DecoderStack. Modules: layers, final_norm.
class LayerStack : public DecoderStack {
 public:
  LayerStack(Layers layers, int64_t d_model, std::shared_ptr<NormImpl> final_norm);
  /// Llama-like, one layer for each mixer.
  LayerStack(const std::vector<std::shared_ptr<TokenMixer>>& mixers, int64_t d_model, int64_t ffn_dim, double norm_eps);
  /// Llama-like with full attention in every layer.
  explicit LayerStack(const LayerStackConfig& config);
  Tensor forward(const Tensor& x, const ForwardContext& context, StackState* state, Want want) override;
  std::unique_ptr<StackState> make_state(const StateShape& shape) const override;
  int64_t d_model() const override { return d_model_; }
  int64_t n_layers() const override { return layers_->count(); }
  Flops forward_flops(Phase phase, int64_t length, int64_t batch) const override;
  StateBytes state_bytes(int64_t length, torch::Dtype dtype) const override;
  SequenceBytes sequence_bytes(const SequencePass& pass) const override;

 private:
  int64_t d_model_;
  std::shared_ptr<DecoderLayers> layers_;
  std::shared_ptr<NormImpl> final_norm_;
};

/// Lengths of a state once it has taken a call of T columns: `context.lengths`, or T each, on top.
Tensor lengths_after(const Tensor& lengths, const ForwardContext& context, int64_t n_tokens);

/// Tokens a forward pass of `length` runs through a layer: 1 for a decode step.
inline int64_t tokens_of(Phase phase, int64_t length) { return phase == Phase::kDecode ? 1 : length; }

}  // namespace tandem
