#pragma once
#include "nn/parameter.h"

namespace tandem {

/// y = x W^T, plus b where it has one. Parameters: weight [out, in]; bias [out], which begins at 0 and does not decay.
class LinearImpl : public Module {
 public:
  LinearImpl(int64_t in, int64_t out, Init init, Split split = Split::kNone, bool bias = false);
  Tensor forward(const Tensor& x) const;  ///< [..., in] -> [..., out]
  const Tensor& weight() const { return weight_; }

 private:
  Tensor weight_, bias_;  // bias_: undefined without one
};
TORCH_MODULE(Linear);

/// A table of vectors. Parameter: weight [count, dim]. Row `frozen` (none: -1) gets no gradient.
class EmbeddingImpl : public Module {
 public:
  EmbeddingImpl(int64_t count, int64_t dim, Init init, int64_t frozen = -1);
  Tensor forward(const Tensor& ids) const;  ///< [...] int64 -> [..., dim]
  const Tensor& weight() const { return weight_; }

 private:
  Tensor weight_;
  int64_t frozen_;
};
TORCH_MODULE(Embedding);

}  // namespace tandem
