#include "nn/linear.h"

namespace tandem {

LinearImpl::LinearImpl(int64_t in, int64_t out, Init init, Split split)
    : weight_(declare(*this, "weight", {out, in}, init, split)) {}

Tensor LinearImpl::forward(const Tensor& x) const { return at::linear(x, weight_); }

EmbeddingImpl::EmbeddingImpl(int64_t count, int64_t dim, Init init)
    : weight_(declare(*this, "weight", {count, dim}, init)) {}

Tensor EmbeddingImpl::forward(const Tensor& ids) const { return at::embedding(weight_, ids); }

}  // namespace tandem
