#pragma once
#include <memory>

#include "nn/layer_runner.h"
#include "train/sharding.h"

namespace tandem {

/// Gathers a layer's sharded weights before it runs and frees them after it, in the forward pass and again around its backward pass
/// (parallelism.shard: parameters). `inner` runs the layer itself, plainly when nullptr: recomputing costs no further gathering, as it happens while the weights are there.
class GatheringRunner final : public LayerRunner {
 public:
  GatheringRunner(Sharding& sharding, std::unique_ptr<LayerRunner> inner);
  Tensors run(torch::nn::Module& layer, const Tensors& inputs, const LayerFunction& f) override;

 private:
  Tensors run_inner(torch::nn::Module& layer, const Tensors& inputs, const LayerFunction& f);
  Sharding& sharding_;
  std::unique_ptr<LayerRunner> inner_;
};

}  // namespace tandem
