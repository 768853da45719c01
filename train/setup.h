#pragma once
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "data/sampler.h"
#include "nn/checkpoint.h"
#include "train/plan.h"
#include "train/train_step.h"

// What a run is made of before its first step. Configs are resolved. Ranks of a mesh all call these with the same arguments.

namespace tandem {

/// What the numbers of a run come from besides its config: hashes of contents.
struct Origins {
  std::string tokenizer, data;
};
Origins origins_of(const Tokenizer& tokenizer, const Sampler& sampler);

/// Throws UserError (exit code 2) where ranks cannot share the steps of `plan`.
void check_mesh(const Plan& plan, const MeshShape& shape);
/// The same where ranks cannot divide the rows of `model`.
void check_sequence(const LanguageModel& model, const MeshShape& shape);

/// Opens the sources of every stage that has steps after the first `step`. Throws UserError, naming
/// the stage, where one cannot be opened, has too few tokens or was made with another tokenizer.
void check_data(const Plan& plan, const Tokenizer& tokenizer, int64_t step);

/// Same numbers from same inputs in this process: `threads` of them, and kernels whose results do
/// not depend on timing.
void make_deterministic(int64_t threads);

/// The rows of a run, laid out as the model wants them.
std::shared_ptr<const Sampler> make_sampler(const TrainConfig& config, const Packing& packing);

ShardingOptions sharding_options(const TrainConfig& config);
/// The initial values of a model without `init`.
WeightsOf random_weights(int64_t seed);
/// Gives run.model its weights, an optimizer over run.mesh and the runner of its layers.
void make_trainable(Run& run, const TrainConfig& config, const ShardingOptions& options,
                    const WeightsOf& weights_of);

/// A run at step 0, its weights random, those of init.from or made out of them; `origin` says
/// which.
Run new_run(const TrainConfig& config, const ModelFactory& factory, const Tokenizer& tokenizer,
            Mesh& mesh, torch::Device device, nlohmann::ordered_json* origin);
/// A run as it was when `checkpoint` was written, about to take the next step under `stage`, the
/// stage of that step.
Run resumed_run(const Checkpoint& checkpoint, const Stage& stage, const ModelFactory& factory,
                Mesh& mesh, torch::Device device);

/// What resumed_run and check_same_run read; state.json of a checkpoint.
nlohmann::ordered_json state_of(const Run& run, const Stage& stage, const Origins& origins);
/// The resolved config of a checkpoint: that of the stage which wrote it.
TrainConfig config_of(const Checkpoint& checkpoint, const ModelFactory& factory);
/// Throws UserError (exit code 2) where the run that wrote `checkpoint` under `old_config` is not
/// the one that `stage`, the stage of the checkpoint's last step, and `origins` describe.
void check_same_run(const std::string& run_folder, const Checkpoint& checkpoint,
                    TrainConfig& old_config, Stage stage, const Origins& origins);

torch::Dtype dtype_of(const TrainingConfig& training);
/// FLOPs of training per token, by part.
Flops flops_per_token(const LanguageModel& model, int64_t context_length);

}  // namespace tandem
