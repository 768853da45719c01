#pragma once
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "nn/cost.h"
#include "nn/swiglu.h"
#include "yoco/self_decoder.h"
#include "yoco/shared_kv.h"

namespace tandem {

struct CrossDecoderConfig {
  int64_t n_layers = 6;
  int64_t n_heads = 12;               // query heads
  std::optional<int64_t> n_kv_heads;  // heads of the shared keys and values; absent: n_heads
  int64_t head_dim = 64;              // channels per head
  bool qkv_bias = false;              // of the projections to queries and to the shared keys and values
  std::optional<double> q_norm_eps = {};  // epsilon of an RMS norm over each head of queries, before rotary positions; none: no norm
  std::optional<DecoderRopeConfig> rope;  // of queries and shared keys; absent: the model's
  std::string input = "self_decoder";     // what enters the first layer: self_decoder (its output) | embeddings (the ablations' unstacked YOCO)
  template <typename Visitor>
  void fields(Visitor& visit) {
    visit.value("n_layers", n_layers, at_least(1));
    visit.value("n_heads", n_heads, at_least(1));
    visit.optional("n_kv_heads", n_kv_heads, at_least(1));
    visit.value("head_dim", head_dim, even());
    visit.value("qkv_bias", qkv_bias);
    visit.optional_or_none("q_norm_eps", q_norm_eps, above(0));
    visit.section("rope", rope);
    visit.one_of("input", input, {"self_decoder", "embeddings"});
  }
  void check(Checker& check) const { check.divides("n_kv_heads", n_kv_heads.value_or(n_heads), "n_heads", n_heads); }
};

/// Attention of one layer's own queries into the shared keys and values. Parameters: q_proj [H*K, D], with a bias where asked for, o_proj [D, H*K]; with q_norm_eps q_norm [K].
class CrossAttention : public Module {
 public:
  CrossAttention(const CrossDecoderConfig& config, int64_t d_model, const RopeConfig& rope);
  /// x: [B, T, D], already normalised; keys, values: [B, S, G, K] -> [B, T, D] without the residual.
  Tensor forward(const Tensor& x, const Tensor& keys, const Tensor& values, const RopeTable& table, const AttendMask& mask);

 private:
  int64_t head_dim_;
  RopeConfig rope_;
  Linear q_proj_{nullptr}, o_proj_{nullptr};
  HeadNorm q_norm_{nullptr};  // empty without q_norm_eps
};

/// norm, cross-attention, residual, norm, SwiGLU, residual. Modules: mixer_norm, mixer, ffn_norm, ffn.
class CrossLayer : public RunUnit {
 public:
  CrossLayer(const CrossDecoderConfig& config, const MixerSpec& spec, int64_t ffn_dim);
  Tensor forward(const Tensor& x, const SharedKv& kv, const RopeTable& table, const AttendMask& mask, const ForwardContext& context);

 private:
  RmsNorm mixer_norm_{nullptr}, ffn_norm_{nullptr};
  std::shared_ptr<CrossAttention> mixer_;
  SwiGlu ffn_{nullptr};
};

/// The second half of the model (YOCO, sec. 2.2): layers without keys and values of their own. Module: layers.
class CrossDecoder : public Module {
 public:
  /// `spec.rope` is the one to use, resolved from the model's and that of `config`.
  CrossDecoder(const CrossDecoderConfig& config, const MixerSpec& spec, int64_t ffn_dim);
  /// x: [B, T, D], what `config.input` names at the positions wanted, -> [B, T, D], not normalised.
  Tensor forward(Tensor x, const SharedKv& kv, const ForwardContext& context);
  /// Of `n_queries` tokens in all, which see `n_pairs` (query, key) pairs.
  double forward_flops(double n_queries, double n_pairs) const;

 private:
  CrossDecoderConfig config_;
  MixerSpec spec_;
  int64_t ffn_dim_;
  std::vector<std::shared_ptr<CrossLayer>> layers_;
};

}  // namespace tandem
