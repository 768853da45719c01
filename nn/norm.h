#pragma once
#include "nn/parameter.h"

namespace tandem {

/// x / sqrt(mean(x^2) + eps) over the last dimension, computed in float32 (float64 for float64) and cast back; no weight.
Tensor rms_norm(const Tensor& x, double eps);

/// What a layer or a stack normalises with.
class NormImpl : public Module {
 public:
  virtual Tensor forward(const Tensor& x) const = 0;  ///< over the last dimension
};

/// rms_norm times a weight [dim], multiplied in x's dtype after the cast.
class RmsNormImpl : public NormImpl {
 public:
  RmsNormImpl(int64_t dim, double eps);
  Tensor forward(const Tensor& x) const override;

 private:
  Tensor weight_;
  double eps_;
};
TORCH_MODULE(RmsNorm);

/// rms_norm of every head, x: [B, T, H, K], times one weight [K] for all heads. Ranks that divide the heads keep the weight whole and sum its gradient.
class HeadNormImpl : public Module {
 public:
  HeadNormImpl(int64_t head_dim, double eps);
  Tensor forward(const Tensor& x) const;

 private:
  Tensor weight_;
  double eps_;
};
TORCH_MODULE(HeadNorm);

/// (x - mean) / sqrt(variance + eps) * weight + bias, computed in float32 (float64 for float64). Parameters: weight [dim] from 1, bias [dim] from 0.
class LayerNormImpl : public NormImpl {
 public:
  LayerNormImpl(int64_t dim, double eps);
  Tensor forward(const Tensor& x) const override;

 private:
  Tensor weight_, bias_;
  double eps_;
};
TORCH_MODULE(LayerNorm);

}  // namespace tandem
