#pragma once
#include <optional>

#include "nn/linear.h"
#include "nn/norm.h"
#include "nn/token_mixer.h"

namespace tandem {

/// What softmax attention over a sequence's own tokens has in common, whatever it keeps as state.
/// Parameters: q_proj [H*K, D], k_proj and v_proj [G*K, D], o_proj [D, H*K], with biases where asked for; drawn from spec.init, or as linear layers are.
/// q_norm and k_norm [K] where asked for, over each head before it is rotated.
class SelfAttention : public TokenMixer {
 protected:
  struct Shape {
    int64_t n_heads, n_kv_heads, head_dim;  // H, G, K
    bool qkv_bias = false, o_bias = false;  // of the projections
    std::optional<double> qk_norm_eps = {};
  };
  struct Heads {
    Tensor q, k, v;  // [B, T, H, K], [B, T, G, K] twice; q and k are normalised where asked for, and rotated
  };
  SelfAttention(const Shape& shape, const MixerSpec& spec);
  /// x: [B, T, D]. Under tensor parallelism this rank's heads.
  Heads heads(const Tensor& x, const ForwardContext& context) const;
  /// mixed: [B, T, H, K], heads as above -> [B, T, D].
  Tensor output(const Tensor& mixed) const;
  /// Of `n_tokens` tokens, whose queries meet `n_pairs` keys in all.
  double flops_of(double n_tokens, double n_pairs) const;
  /// Of the keys and values of `n_tokens` tokens, those of this rank, in a cache of `dtype`.
  int64_t bytes_of(int64_t n_tokens, torch::Dtype dtype) const;
  int64_t local_kv_heads() const;  ///< G, or the part of it that this rank's queries see

  const Shape shape_;

 private:
  MixerSpec spec_;
  Linear q_proj_{nullptr}, k_proj_{nullptr}, v_proj_{nullptr}, o_proj_{nullptr};
  HeadNorm q_norm_{nullptr}, k_norm_{nullptr};  // empty without qk_norm_eps
};

}  // namespace tandem
