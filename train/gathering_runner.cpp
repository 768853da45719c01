#include "train/gathering_runner.h"

#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <functional>
#include <iterator>
#include <utility>

namespace tandem {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct HeldAction : torch::CustomClassHolder {
  std::function<void()> act;
  explicit HeldAction(std::function<void()> action) : act(std::move(action)) {}
};

/// The inputs; when their gradients come by in the backward pass, `act` is called.
struct InBackward : torch::autograd::Function<InBackward> {
  static variable_list forward(AutogradContext* ctx, at::TensorList inputs,
                               const std::function<void()>& act) {
    ctx->saved_data["act"] = c10::IValue::make_capsule(c10::make_intrusive<HeldAction>(act));
    ctx->set_materialize_grads(false);
    variable_list outputs;
    for (const auto& input : inputs) outputs.push_back(input.view_as(input));
    return outputs;
  }
  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    c10::static_intrusive_pointer_cast<HeldAction>(ctx->saved_data["act"].toCapsule())->act();
    gradients.emplace_back();  // of act
    return gradients;
  }
};

bool needs_gradient(const Tensor& x) { return x.defined() && x.requires_grad(); }

/// `tensors`, those that need gradients through InBackward.
Tensors with_action(Tensors tensors, const std::function<void()>& act) {
  Tensors needing;
  std::copy_if(tensors.begin(), tensors.end(), std::back_inserter(needing), needs_gradient);
  if (needing.empty()) return tensors;
  const Tensors wrapped = InBackward::apply(at::TensorList(needing), act);
  size_t next = 0;
  for (auto& tensor : tensors) {
    if (needs_gradient(tensor)) tensor = wrapped[next++];
  }
  return tensors;
}

}  // namespace

GatheringRunner::GatheringRunner(Sharding& sharding, std::unique_ptr<LayerRunner> inner)
    : sharding_(sharding), inner_(std::move(inner)) {}

Tensors GatheringRunner::run_inner(torch::nn::Module& layer, const Tensors& inputs,
                                   const LayerFunction& f) {
  return inner_ ? inner_->run(layer, inputs, f) : f(inputs);
}

Tensors GatheringRunner::run(torch::nn::Module& layer, const Tensors& inputs,
                             const LayerFunction& f) {
  using Pass = Sharding::Pass;
  FlatBucket* bucket = sharding_.bucket_of(layer);
  if (!bucket) return run_inner(layer, inputs, f);
  const bool differentiated =
      torch::GradMode::is_enabled() && std::any_of(inputs.begin(), inputs.end(), needs_gradient);
  sharding_.gather(*bucket, Pass::kForward);
  Tensors outputs;
  if (differentiated) {
    // The backward pass meets the last of these first: gather, the layer, release.
    const auto own = with_action(inputs, [this, bucket] { sharding_.release(*bucket); });
    outputs = with_action(run_inner(layer, own, f),
                          [this, bucket] { sharding_.gather(*bucket, Pass::kBackward); });
  } else {
    outputs = run_inner(layer, inputs, f);
  }
  sharding_.release(*bucket);
  return outputs;
}

}  // namespace tandem
