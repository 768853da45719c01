#pragma once
#include "nn/layer.h"
#include "nn/norm.h"
#include "nn/swiglu.h"

namespace tandem {

/// norm, mixer, residual, norm, SwiGLU, residual (Llama-like). Modules: mixer_norm, mixer, ffn_norm, ffn.
class DecoderLayer : public Layer {
 public:
  DecoderLayer(std::shared_ptr<TokenMixer> mixer, int64_t d_model, int64_t ffn_dim, double norm_eps);
  Tensor forward(const Tensor& x, const ForwardContext& context, MixerState* state) override;
  const TokenMixer& mixer() const override { return *mixer_; }
  double ffn_flops(double n_tokens) const override;

 private:
  int64_t d_model_, ffn_dim_;
  std::shared_ptr<TokenMixer> mixer_;
  RmsNorm mixer_norm_{nullptr}, ffn_norm_{nullptr};
  SwiGlu ffn_{nullptr};
};

/// Multiply-adds times two of SwiGLU for n tokens.
inline double swiglu_flops(int64_t d_model, int64_t ffn_dim, double n_tokens) { return 6.0 * d_model * ffn_dim * n_tokens; }

}  // namespace tandem
