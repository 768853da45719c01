#include "nn/layer_runner.h"

namespace tandem {

Tensors run_layer(const ForwardContext& context, torch::nn::Module& layer, const Tensors& inputs,
                  const LayerFunction& f) {
  return context.runner == nullptr ? f(inputs) : context.runner->run(layer, inputs, f);
}

}  // namespace tandem
