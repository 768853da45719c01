#include "nn/linear.h"

#include "comm/communicator.h"

namespace tandem {
namespace {

HeldRows held_rows(const ParameterInfo& info, Communicator* group) {
  if (group == nullptr || info.split_dim != 0 || !info.divided()) return {};
  return {group, info.split_begin, info.global_shape[0]};
}

}  // namespace

LinearImpl::LinearImpl(int64_t in, int64_t out, Init init, Split split, bool bias,
                       int64_t split_unit)
    : weight_(declare(*this, "weight", {out, in}, init, split, /*decay=*/true, split_unit)) {
  if (!bias) return;
  // An output that is summed over ranks gets its bias once, so each keeps it whole.
  const bool rows = split == Split::kRows;
  bias_ = declare(*this, "bias", {out}, init_constant(0), rows ? split : Split::kNone,
                  /*decay=*/false, rows ? split_unit : 1);
}

Tensor LinearImpl::forward(const Tensor& x) const {
  Communicator* group = tensor_group();
  if (group == nullptr) return at::linear(x, weight_, bias_);
  const ParameterInfo& info = declared("weight");
  if (info.split_dim == 1) {
    const Tensor sum = sum_over_group(at::linear(x, weight_), group);
    return bias_.defined() ? sum + bias_ : sum;
  }
  if (info.split_dim < 0 || info.divided()) return at::linear(x, weight_, bias_);
  const int64_t units = info.global_shape[0] / info.split_unit;
  const int64_t begin = group->rank() * units / group->size() * info.split_unit;
  const auto shared = [&](const Tensor& whole) {  // its gradient comes from several ranks
    return copy_to_group(whole, group).narrow(0, begin, info.split_unit);
  };
  return at::linear(x, shared(weight_), bias_.defined() ? shared(bias_) : bias_);
}

HeldRows LinearImpl::part() const { return held_rows(declared("weight"), tensor_group()); }

int64_t LinearImpl::local_out() const {
  const ParameterInfo& info = declared("weight");
  const bool shares = tensor_group() != nullptr && info.split_dim == 0 && !info.divided();
  return shares ? info.split_unit : weight_.size(0);
}

EmbeddingImpl::EmbeddingImpl(int64_t count, int64_t dim, Init init, int64_t frozen, Split split)
    : weight_(declare(*this, "weight", {count, dim}, init, split)), frozen_(frozen) {
  TORCH_CHECK(frozen >= -1 && frozen < count, "Embedding: frozen row ", frozen, " of ", count);
}

Tensor EmbeddingImpl::forward(const Tensor& ids) const {
  const HeldRows rows = part();
  if (rows.group == nullptr) return at::embedding(weight_, ids, /*padding_idx=*/frozen_);
  const int64_t held = weight_.size(0), frozen = frozen_ - rows.begin;
  const auto local = ids - rows.begin;
  const auto elsewhere = local.lt(0).logical_or_(local.ge(held));
  const auto found = at::embedding(weight_, local.masked_fill(elsewhere, 0),
                                   /*padding_idx=*/frozen >= 0 && frozen < held ? frozen : -1);
  return sum_over_group(found.masked_fill(elsewhere.unsqueeze(-1), 0), rows.group);
}

HeldRows EmbeddingImpl::part() const { return held_rows(declared("weight"), tensor_group()); }

}  // namespace tandem
