#pragma once
#include "nn/parameter.h"

namespace tandem {

/// y = x W^T, without bias. Parameter: weight [out, in].
class LinearImpl : public Module {
 public:
  LinearImpl(int64_t in, int64_t out, Init init, Split split = Split::kNone);
  Tensor forward(const Tensor& x) const;  ///< [..., in] -> [..., out]
  const Tensor& weight() const { return weight_; }

 private:
  Tensor weight_;
};
TORCH_MODULE(Linear);

/// A table of vectors. Parameter: weight [count, dim].
class EmbeddingImpl : public Module {
 public:
  EmbeddingImpl(int64_t count, int64_t dim, Init init);
  Tensor forward(const Tensor& ids) const;  ///< [...] int64 -> [..., dim]
  const Tensor& weight() const { return weight_; }

 private:
  Tensor weight_;
};
TORCH_MODULE(Embedding);

}  // namespace tandem
