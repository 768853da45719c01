#include "nn/swiglu.h"

#include <torch/csrc/autograd/custom_function.h>

namespace tandem {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Saves its inputs only: silu(gate) is cheaper to compute again than to keep.
struct SwiGluFunction : torch::autograd::Function<SwiGluFunction> {
  static Tensor forward(AutogradContext* ctx, const Tensor& gate, const Tensor& up) {
    ctx->save_for_backward({gate, up});
    const auto wide = float_or_wider(gate.scalar_type());
    return at::silu(gate.to(wide)).mul_(up).to(gate.scalar_type());
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    const auto saved = ctx->get_saved_variables();
    const auto type = saved[0].scalar_type(), wide = float_or_wider(type);
    const auto gate = saved[0].to(wide), gradient = gradients[0].to(wide);
    const auto d_up = at::silu(gate).mul_(gradient);
    const auto d_gate = at::silu_backward(gradient * saved[1], gate);
    return {d_gate.to(type), d_up.to(type)};
  }
};

}  // namespace

Tensor swiglu(const Tensor& gate, const Tensor& up) { return SwiGluFunction::apply(gate, up); }

SwiGluImpl::SwiGluImpl(int64_t d_model, int64_t ffn_dim) {
  gate_proj_ = register_module(
      "gate_proj", Linear(d_model, ffn_dim, init_kaiming_uniform(d_model), Split::kRows));
  up_proj_ = register_module("up_proj",
                             Linear(d_model, ffn_dim, init_kaiming_uniform(d_model), Split::kRows));
  down_proj_ = register_module(
      "down_proj", Linear(ffn_dim, d_model, init_kaiming_uniform(ffn_dim), Split::kColumns));
}

Tensor SwiGluImpl::forward(const Tensor& whole) const {
  const Tensor x = copy_to_group(whole, tensor_group());
  return down_proj_->forward(swiglu(gate_proj_->forward(x), up_proj_->forward(x)));
}

}  // namespace tandem
