#include "cli/mesh_report.h"

#include "cli/build_model.h"
#include "comm/planned_communicator.h"
#include "core/error.h"
#include "nn/sequence_parallel.h"
#include "nn/tensor_traffic.h"
#include "train/mesh_cost.h"
#include "train/setup.h"

namespace tandem {
namespace {

using Json = nlohmann::ordered_json;

/// Bytes that the last rank of a sequence sends in a step; the first one sends less.
Json sequence_bytes(const LanguageModel& model, const TrainConfig& config, const MeshShape& shape,
                    int64_t micro_batches) {
  SequencePass pass;
  pass.ranks = shape.sequence;
  pass.rank = shape.sequence - 1;
  pass.batch = *config.training.micro_batch_size;
  pass.length = config.training.context_length;
  pass.element_size = config.training.dtype == "bfloat16" ? 2 : 4;
  pass.tensor = shape.tensor;
  pass.recompute = config.training.recompute == "layers";
  Json json;
  for (const auto& [part, bytes] : model.sequence_bytes(pass).parts)
    json[part] = bytes * static_cast<double>(micro_batches);
  return json;
}

/// Bytes that a rank gives to those that divide heads with it, in a step.
Json tensor_bytes(const LanguageModel& model, const TrainConfig& config, const MeshShape& shape,
                  int64_t micro_batches) {
  const auto n_tokens = static_cast<double>(*config.training.micro_batch_size *
                                            config.training.context_length / shape.sequence);
  const TensorTraffic traffic = tensor_traffic(
      model, shape.tensor, [&](const std::string&) { return n_tokens; }, n_tokens,
      config.training.dtype == "bfloat16" ? 2 : 4);
  const auto n = static_cast<double>(micro_batches);
  Json json = {{"forward", n * traffic.forward}, {"backward", n * traffic.backward}};
  if (config.training.recompute == "layers") json["forward again"] = n * traffic.again;
  return json;
}

}  // namespace

MeshShape mesh_of(const TrainConfig& config, int64_t world) {
  const ParallelismConfig& parallelism = config.parallelism;
  return mesh_shape(shard_level(parallelism.shard), world, parallelism.tensor, parallelism.sequence,
                    parallelism.replicate);
}

Json describe_mesh(const Stage& stage, int64_t world) {
  const TrainConfig& config = stage.config;
  const MeshShape shape = mesh_of(config, world);
  const auto model = model_factory().build(config.model);
  const auto tensor = make_planned_communicator("tensor", shape.tensor);
  split_over(*model, *tensor);
  check_sequence(*model, shape);
  const int64_t each = *config.training.micro_batch_size,
                total = config.training.rows_per_step() / each,
                of_rank = (total + shape.data - 1) / shape.data;
  const MeshCost cost = mesh_cost(*model, shape, sharding_options(config), of_rank);

  Json json;
  json["world"] = world;
  json["mesh"] = shape.str();
  json["micro_batches_per_step_and_rank"] = of_rank;
  const bool bfloat16 = config.training.dtype == "bfloat16";
  Json& memory = json["training_memory_bytes"];
  memory["masters"] = bfloat16 ? cost.master_bytes : cost.weight_bytes;
  memory["gradients"] = cost.gradient_bytes;
  memory["adam_moments"] = cost.moment_bytes;
  memory["bfloat16_copies"] = bfloat16 ? cost.weight_bytes : 0.0;
  if (cost.gathered_bytes > 0) memory["gathered_layers"] = cost.gathered_bytes;
  if (cost.travelling_bytes > 0) memory["travelling_gradients"] = cost.travelling_bytes;
  memory["total"] = cost.total_bytes();
  if (!cost.sent.empty()) {
    for (const auto& [operation, bytes] : cost.sent) json["sent_bytes_per_step"][operation] = bytes;
  }
  if (shape.tensor > 1 && stage.packing.multiple == 1)
    json["tensor_sent_bytes_per_step"] = tensor_bytes(*model, config, shape, of_rank);
  if (shape.sequence > 1) {
    json["sequence_sent_bytes_per_step"] = sequence_bytes(*model, config, shape, of_rank);
    json["imbalance"] = imbalance_message(shape.sequence, config.training.context_length);
  }
  return json;
}

}  // namespace tandem
