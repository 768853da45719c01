#include "train/mesh_cost.h"

#include <algorithm>

namespace tandem {
namespace {

double bytes_each(torch::Dtype dtype) { return static_cast<double>(elementSize(dtype)); }

}  // namespace

MeshCost mesh_cost(const torch::nn::Module& model, const MeshShape& shape,
                   const ShardingOptions& options, int64_t micro_batches) {
  const double ranks = static_cast<double>(shape.shard()),
               replicas = static_cast<double>(shape.replicate);
  const double weight = bytes_each(options.dtype), master = bytes_each(options.master_dtype),
               travelling = options.reduce_dtype == torch::kBFloat16 ? 2 : master;
  const bool shared = shape.shard() > 1,
             by_layer = shared && options.level == ShardLevel::kParameters;
  const bool whole_gradients = !shared || options.level <= ShardLevel::kOptimizer;
  // Masters of the modules' type are the weights, or the rank's part of them.
  const double own_master = options.dtype == options.master_dtype ? 0 : master;
  const double passes = static_cast<double>(whole_gradients ? 1 : micro_batches);

  MeshCost cost;
  double reduce_scatter = 0, all_reduce = 0, all_gather = 0;
  std::vector<double> layers, buckets;  // bytes of weights, of travelling gradients
  for (auto& members : make_buckets(model, by_layer, options.bucket_elements)) {
    const bool sharded = members.layer != nullptr;
    const FlatBucket bucket(std::move(members), shape.shard(), /*rank=*/0);
    const double n = static_cast<double>(bucket.numel()), own = n / ranks;
    cost.weight_bytes += (sharded ? own : n) * weight;
    cost.gradient_bytes += (whole_gradients ? n : own) * master;
    cost.master_bytes += own * own_master;
    cost.moment_bytes += 2 * own * master;
    if (sharded) layers.push_back(n * weight);
    if (!whole_gradients) buckets.push_back(n * (master + (travelling == master ? 0 : travelling)));
    reduce_scatter += passes * (ranks - 1) / ranks * n * travelling;
    all_reduce += 2 * (replicas - 1) / replicas * own * travelling;
    const double gathers = sharded ? 2 * static_cast<double>(micro_batches) : 1;
    all_gather += gathers * (ranks - 1) * own * weight;
  }
  const auto sum_of_largest = [](std::vector<double>& values, size_t n) {
    std::sort(values.rbegin(), values.rend());
    double sum = 0;
    for (size_t i = 0; i < std::min(n, values.size()); ++i) sum += values[i];
    return sum;
  };
  cost.gathered_bytes = sum_of_largest(layers, 2);
  cost.travelling_bytes = sum_of_largest(buckets, 3);
  for (const auto& [name, bytes] : {std::pair{"shard.reduce_scatter", reduce_scatter},
                                    {"shard.all_gather", all_gather},
                                    {"replica.all_reduce", all_reduce}}) {
    if (bytes > 0) cost.sent.emplace_back(name, bytes);
  }
  return cost;
}

}  // namespace tandem
