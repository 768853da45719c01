#pragma once
#include <memory>
#include <string>

#include "nn/full_attention.h"
#include "nn/layer.h"
#include "nn/linear.h"
#include "nn/norm.h"

namespace tandem {

inline constexpr double kNeoxStd = 0.02;  // of all weights at the start

struct NeoxLayerSpec {
  int64_t d_model = 0, ffn_dim = 0, n_heads = 0, head_dim = 0;
  double norm_eps = 1e-5;
  RopeConfig rope = {};
  bool parallel_residual = true;     // x + mixer(norm(x)) + ffn(norm(x)), else one after the other (GPT-2)
  std::string activation = "gelu";   // gelu (exact) | gelu_tanh
};

/// The layer of GPT-NeoX and, with other settings, of GPT-2: LayerNorm, attention and two-layer feed-forward with biases. Weights are drawn from N(0, kNeoxStd).
/// Modules: mixer_norm, mixer, ffn_norm, ffn.up_proj, ffn.down_proj.
class NeoxLayer : public Layer {
 public:
  explicit NeoxLayer(const NeoxLayerSpec& spec);
  Tensor forward(const Tensor& x, const ForwardContext& context, MixerState* state) override;
  const TokenMixer& mixer() const override { return *mixer_; }
  double ffn_flops(double n_tokens) const override;

 private:
  NeoxLayerSpec spec_;
  std::shared_ptr<FullAttention> mixer_;
  LayerNorm mixer_norm_{nullptr}, ffn_norm_{nullptr};
  Linear up_proj_{nullptr}, down_proj_{nullptr};  // of the feed-forward
};

}  // namespace tandem
