#pragma once
#include "nn/layer_runner.h"

namespace tandem {

/// f(inputs), keeping nothing but the inputs for the backward pass, which runs f again: Tensor::backward(), as parameters that f reads get their
/// gradients in it. Where no input needs a gradient f runs plainly: a layer behind frozen ones trains all the same.
Tensors recomputed(const Tensors& inputs, const LayerFunction& f);

/// Keeps a layer's inputs only and runs the layer again in the backward pass (Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost").
/// The gradients are the plain run's to the bit, as layers are pure and what they draw is counted. Runs plainly where nothing is differentiated.
class RecomputingRunner final : public LayerRunner {
 public:
  Tensors run(torch::nn::Module& layer, const Tensors& inputs, const LayerFunction& f) override;
};

}  // namespace tandem
