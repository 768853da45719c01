#pragma once
#include <nlohmann/json.hpp>

#include "comm/mesh.h"
#include "train/plan.h"

namespace tandem {

/// The mesh that `config` asks for with so many ranks. Throws UserError (exit code 2) where it does not work out.
MeshShape mesh_of(const TrainConfig& config, int64_t world);

/// What each rank of a run on `world` ranks holds between steps and sends in one, of a stage: "mesh", "data_ranks", "training_memory_bytes" (without activations), "sent_bytes_per_step" by group and operation
/// (Traffic), where ranks divide heads "tensor_sent_bytes_per_step" (of models that are one stack), and where they divide rows "sequence_sent_bytes_per_step" and a sentence, "imbalance". Throws UserError naming what cannot work: heads that do not divide, a model that takes whole rows only, ...
nlohmann::ordered_json describe_mesh(const Stage& stage, int64_t world);

}  // namespace tandem
