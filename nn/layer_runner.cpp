#include "nn/layer_runner.h"

namespace tandem {
namespace {

/// The same values as a node of the graph of their own: what a layer adds to an input's gradient is
/// summed there before it meets other layers'. Recomputed layers sum so too, to the bit.
Tensors own_nodes(const Tensors& inputs) {
  if (!torch::GradMode::is_enabled()) return inputs;
  Tensors own;
  for (const auto& x : inputs) own.push_back(x.requires_grad() ? x.view_as(x) : x);
  return own;
}

}  // namespace

Tensors run_layer(const ForwardContext& context, torch::nn::Module& layer, const Tensors& inputs,
                  const LayerFunction& f) {
  if (context.runner == nullptr) return f(own_nodes(inputs));
  return context.runner->run(layer, inputs, f);
}

}  // namespace tandem
