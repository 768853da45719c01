#include "nn/linear.h"

namespace tandem {

LinearImpl::LinearImpl(int64_t in, int64_t out, Init init, Split split, bool bias)
    : weight_(declare(*this, "weight", {out, in}, init, split)) {
  if (!bias) return;
  // An output that is summed over ranks gets its bias once, so each keeps it whole.
  const Split of_bias = split == Split::kRows ? Split::kRows : Split::kNone;
  bias_ = declare(*this, "bias", {out}, init_constant(0), of_bias, /*decay=*/false);
}

Tensor LinearImpl::forward(const Tensor& x) const { return at::linear(x, weight_, bias_); }

EmbeddingImpl::EmbeddingImpl(int64_t count, int64_t dim, Init init, int64_t frozen)
    : weight_(declare(*this, "weight", {count, dim}, init)), frozen_(frozen) {
  TORCH_CHECK(frozen >= -1 && frozen < count, "Embedding: frozen row ", frozen, " of ", count);
}

Tensor EmbeddingImpl::forward(const Tensor& ids) const {
  return at::embedding(weight_, ids, /*padding_idx=*/frozen_);
}

}  // namespace tandem
