#pragma once
#include "nn/parameter.h"
#include "nn/tensor_parallel.h"

namespace tandem {

/// y = x W^T, plus b where it has one. Parameters: weight [out, in]; bias [out], which begins at 0 and does not decay.
/// Divided over a tensor group by rows, in units of `split_unit` outputs (the channels of a head), it gives this rank's outputs of an x that went through copy_to_group(). Where there are
/// fewer units than ranks the weight is whole on all of them, and each gives the one unit that it and its neighbours share. Divided by columns it takes this rank's inputs and gives
/// the sum over the group.
class LinearImpl : public Module {
 public:
  LinearImpl(int64_t in, int64_t out, Init init, Split split = Split::kNone, bool bias = false, int64_t split_unit = 1);
  Tensor forward(const Tensor& x) const;  ///< [..., in] -> [..., out], of a divided one this rank's
  const Tensor& weight() const { return weight_; }
  HeldRows part() const;       ///< of the rows this rank holds
  int64_t local_out() const;  ///< outputs of forward()

 private:
  Tensor weight_, bias_;  // bias_: undefined without one
};
TORCH_MODULE(Linear);

/// A table of vectors. Parameter: weight [count, dim]. Row `frozen` (none: -1) gets no gradient. With Split::kRows (vocabularies) a tensor group divides the rows: each rank looks up
/// those it holds, and the group's vectors are summed.
class EmbeddingImpl : public Module {
 public:
  EmbeddingImpl(int64_t count, int64_t dim, Init init, int64_t frozen = -1, Split split = Split::kNone);
  Tensor forward(const Tensor& ids) const;  ///< [...] int64 -> [..., dim]
  const Tensor& weight() const { return weight_; }
  HeldRows part() const;  ///< of the rows this rank holds

 private:
  Tensor weight_;
  int64_t frozen_;
};
TORCH_MODULE(Embedding);

}  // namespace tandem
