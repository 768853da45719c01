#pragma once
#include "nn/parameter.h"

namespace tandem {

/// x / sqrt(mean(x^2) + eps) over the last dimension, computed in float32 (float64 for float64) and cast back; no weight.
Tensor rms_norm(const Tensor& x, double eps);

/// The same times a weight [dim], multiplied in x's dtype after the cast.
class RmsNormImpl : public Module {
 public:
  RmsNormImpl(int64_t dim, double eps);
  Tensor forward(const Tensor& x) const;

 private:
  Tensor weight_;
  double eps_;
};
TORCH_MODULE(RmsNorm);

}  // namespace tandem
