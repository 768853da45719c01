#pragma once
#include <optional>

#include "nn/kv_cache.h"
#include "nn/self_attention.h"

namespace tandem {

struct FullAttentionConfig {
  int64_t n_heads = 8;                // query heads
  std::optional<int64_t> n_kv_heads;  // key/value heads; absent: n_heads
  int64_t head_dim = 64;              // channels per head
  bool bias = false;                  // of all four projections
  bool qkv_bias = false;              // of those to queries, keys and values alone
  std::optional<double> qk_norm_eps = {};  // epsilon of an RMS norm over each head of queries and keys, before rotary positions; none: no norm
  template <typename Visitor>
  void fields(Visitor& visit) {
    visit.value("n_heads", n_heads, at_least(1));
    visit.optional("n_kv_heads", n_kv_heads, at_least(1));
    visit.value("head_dim", head_dim, even());
    visit.value("bias", bias);
    visit.value("qkv_bias", qkv_bias);
    visit.optional_or_none("qk_norm_eps", qk_norm_eps, above(0));
  }
  void check(Checker& check) const { check.divides("n_kv_heads", n_kv_heads.value_or(n_heads), "n_heads", n_heads); }
};

/// Causal softmax attention over everything before. Parameters: q_proj, k_proj, v_proj, o_proj; with qk_norm_eps q_norm, k_norm. State: a KvCache ("keys", "values").
class FullAttention : public SelfAttention {
 public:
  FullAttention(const FullAttentionConfig& config, const MixerSpec& spec);
  Tensor forward(const Tensor& x, const ForwardContext& context, MixerState* state) override;
  std::unique_ptr<MixerState> make_state(const StateShape& shape) const override;
  double forward_flops(Phase phase, int64_t length, int64_t batch) const override;
  int64_t state_bytes(int64_t length, torch::Dtype dtype) const override;
  double sequence_bytes(const SequencePass& pass) const override;  ///< all keys and values of every layer
};

}  // namespace tandem
