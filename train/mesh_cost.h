#pragma once
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "train/sharding.h"

namespace tandem {

/// What one rank holds of a model between steps, and what sharing it costs in a step, from shapes alone.
struct MeshCost {
  double weight_bytes = 0, gradient_bytes = 0, master_bytes = 0, moment_bytes = 0;
  double gathered_bytes = 0;   // most that a step holds besides: weights of the two layers that are gathered at once
  double travelling_bytes = 0; // and gradients on their way
  std::vector<std::pair<std::string, double>> sent;  // bytes that leave the rank in a step, by "group.operation" (Traffic)
  double total_bytes() const { return weight_bytes + gradient_bytes + master_bytes + moment_bytes + gathered_bytes + travelling_bytes; }
};

/// `model`: divided over its tensor ranks (split_over) or whole. `micro_batches`: of each data rank in a step.
MeshCost mesh_cost(const torch::nn::Module& model, const MeshShape& shape, const ShardingOptions& options, int64_t micro_batches);

}  // namespace tandem
