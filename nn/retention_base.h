#pragma once
#include "nn/linear.h"
#include "nn/token_mixer.h"

namespace tandem {

/// What retention mixers have in common, whatever decides how fast they forget (RetNet, sec. 2; YOCO, sec. 3.1):
/// swish(x W_G) * RmsNorm_head(retention) W_O. Parameters: q_proj, k_proj, v_proj, g_proj [H*K, D], o_proj [D, H*K].
/// The head norm has no weight; keys are scaled by K^-0.5 and carry that factor into the state. State tensor: "state" [B, H, K, K], rows key channels.
class RetentionBase : public TokenMixer {
 public:
  Tensor forward(const Tensor& x, const ForwardContext& context, MixerState* state) override;
  std::unique_ptr<MixerState> make_state(const StateShape& shape) const override;
  double forward_flops(Phase phase, int64_t length, int64_t batch) const override;  ///< without those of log_decay()
  int64_t state_bytes(int64_t length, torch::Dtype dtype) const override;
  double sequence_bytes(const SequencePass& pass) const override;  ///< whatever the length

 protected:
  struct Shape {
    int64_t n_heads, head_dim, chunk;  // H, K, and tokens handled at once
  };
  RetentionBase(const Shape& shape, const MixerSpec& spec);
  /// To be called at the end of a derived class's constructor: o_proj comes after the parameters of its decay, as sums over parameters (the gradient
  /// norm) go in their order.
  void register_o_proj();
  /// The heads that this rank holds.
  struct LocalHeads {
    int64_t begin, count;
  };
  LocalHeads local_heads() const;
  /// x: [B, T, D] -> [B, T, H] of the heads this rank holds, what a token multiplies its head's state by, as a logarithm <= 0 in float32 (float64 for float64).
  virtual Tensor log_decay(const Tensor& x) const = 0;

  const Shape shape_;
  const MixerSpec spec_;

 private:
  Linear q_proj_{nullptr}, k_proj_{nullptr}, v_proj_{nullptr}, g_proj_{nullptr}, o_proj_{nullptr};
};

}  // namespace tandem
