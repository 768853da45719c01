#pragma once
#include <functional>

#include "nn/forward_context.h"

namespace tandem {

using LayerFunction = std::function<Tensors(const Tensors&)>;  // pure; captures by value, the context too

/// Runs each layer plainly, recomputing it, gathering its weights, or timing it; runners wrap one another. LibTorch's C++ modules have no
/// hooks, so this is where such things attach. Every differentiable input is passed in `inputs` (shared keys and values too).
class LayerRunner {
 public:
  virtual ~LayerRunner() = default;
  virtual Tensors run(torch::nn::Module& layer, const Tensors& inputs, const LayerFunction& f) = 0;
};

/// Through context.runner, or plainly when there is none.
Tensors run_layer(const ForwardContext& context, torch::nn::Module& layer, const Tensors& inputs, const LayerFunction& f);

}  // namespace tandem
