#include "nn/tensor_parallel.h"

#include <torch/csrc/autograd/custom_function.h>

#include "comm/communicator.h"

namespace tandem {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

bool alone(const Communicator* group) { return group == nullptr || group->size() == 1; }

/// Summed over `group` into a tensor of its own: others may hold x.
Tensor summed(const Tensor& x, Communicator& group) {
  Tensor sum = x.clone(at::MemoryFormat::Contiguous);
  if (sum.numel() == 0) return sum;
  group.all_reduce(sum, Reduction::kSum)->wait();
  return sum;
}

// A group outlives the graph: it belongs to the run.
Communicator& group_of(AutogradContext* ctx) {
  return *reinterpret_cast<Communicator*>(ctx->saved_data["group"].toInt());
}

struct CopyToGroup : torch::autograd::Function<CopyToGroup> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, Communicator* group) {
    ctx->saved_data["group"] = reinterpret_cast<int64_t>(group);
    return x.view_as(x);
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    return {summed(gradients[0], group_of(ctx)), {}};
  }
};

struct SumOverGroup : torch::autograd::Function<SumOverGroup> {
  static Tensor forward(AutogradContext*, const Tensor& x, Communicator* group) {
    return summed(x, *group);
  }
  static variable_list backward(AutogradContext*, const variable_list& gradients) {
    return {gradients[0], {}};
  }
};

}  // namespace

Tensor copy_to_group(const Tensor& x, Communicator* group) {
  const bool differentiated = torch::GradMode::is_enabled() && x.requires_grad();
  return alone(group) || !differentiated ? x : CopyToGroup::apply(x, group);
}

Tensor sum_over_group(const Tensor& x, Communicator* group) {
  return alone(group) ? x : SumOverGroup::apply(x, group);
}

UnitRange units_of_rank(int64_t units, int64_t rank, int64_t ranks) {
  return {rank * units / ranks, (rank + 1) * units / ranks};
}

Tensor gather_logits(const Tensor& logits, const HeldRows& part) {
  if (alone(part.group)) return logits;
  const int64_t ranks = part.group->size(), most = (part.count + ranks - 1) / ranks;
  // Parts that differ by a row are sent equally long.
  const Tensor own = at::constant_pad_nd(logits, {0, most - logits.size(-1)}).contiguous();
  Tensor all = torch::empty({ranks, own.numel()}, own.options());
  part.group->all_gather(all, own)->wait();
  Tensors parts;
  for (int64_t r = 0; r < ranks; ++r) {
    const auto [begin, end] = units_of_rank(part.count, r, ranks);
    parts.push_back(all[r].view(own.sizes()).narrow(-1, 0, end - begin));
  }
  return torch::cat(parts, -1);
}

}  // namespace tandem
