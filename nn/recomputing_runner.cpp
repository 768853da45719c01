#include "nn/recomputing_runner.h"

#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <utility>

namespace tandem {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// A function on its way from the forward to the backward pass.
struct Held : torch::CustomClassHolder {
  LayerFunction f;
  explicit Held(LayerFunction function) : f(std::move(function)) {}
};

struct Recompute : torch::autograd::Function<Recompute> {
  static variable_list forward(AutogradContext* ctx, at::TensorList inputs,
                               const LayerFunction& f) {
    ctx->save_for_backward(inputs.vec());
    ctx->saved_data["f"] = c10::IValue::make_capsule(c10::make_intrusive<Held>(f));
    ctx->set_materialize_grads(false);
    return f(inputs.vec());  // grad mode is off in here
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    Tensors inputs;
    for (const auto& input : ctx->get_saved_variables()) {
      inputs.push_back(input.detach().requires_grad_(input.requires_grad()));
    }
    const auto held = c10::static_intrusive_pointer_cast<Held>(ctx->saved_data["f"].toCapsule());
    Tensors reached, of_reached;  // outputs that the loss depends on, and their gradients
    {
      const torch::AutoGradMode grad_mode(true);
      const Tensors outputs = held->f(inputs);
      for (size_t i = 0; i < outputs.size(); ++i) {
        if (!gradients[i].defined() || !outputs[i].requires_grad()) continue;
        reached.push_back(outputs[i]);
        of_reached.push_back(gradients[i]);
      }
    }
    if (!reached.empty()) torch::autograd::backward(reached, of_reached);  // parameters too
    variable_list result;
    for (const auto& input : inputs) result.push_back(input.grad());
    result.emplace_back();  // of f
    return result;
  }
};

}  // namespace

Tensors recomputed(const Tensors& inputs, const LayerFunction& f) {
  const bool differentiated =
      torch::GradMode::is_enabled() &&
      std::any_of(inputs.begin(), inputs.end(), [](const Tensor& x) { return x.requires_grad(); });
  return differentiated ? Recompute::apply(at::TensorList(inputs), f) : f(inputs);
}

Tensors RecomputingRunner::run(torch::nn::Module&, const Tensors& inputs, const LayerFunction& f) {
  return recomputed(inputs, f);
}

}  // namespace tandem
