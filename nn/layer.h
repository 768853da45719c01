#pragma once
#include "nn/run_unit.h"
#include "nn/token_mixer.h"

namespace tandem {

/// One layer of a stack: a mixer and a feed-forward with their norms and residuals.
class Layer : public RunUnit {
 public:
  /// x: [B, T, D] -> [B, T, D], run through context.runner.
  virtual Tensor forward(const Tensor& x, const ForwardContext& context, MixerState* state) = 0;
  virtual const TokenMixer& mixer() const = 0;
  /// Of the feed-forward, for n tokens.
  virtual double ffn_flops(double n_tokens) const = 0;
};

}  // namespace tandem
