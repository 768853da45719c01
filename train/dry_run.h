#pragma once
#include "comm/mesh.h"
#include "nn/device_info.h"
#include "nn/model_factory.h"
#include "train/train_config.h"

namespace tandem {

/// What a run would cost, from one micro-batch of its data.
struct DryRun {
  int64_t parameters = 0;
  Flops flops_per_token;           // of training, by part
  double loss = 0;                 // of the micro-batch
  double micro_batch_seconds = 0;  // forward and backward
  double tokens_per_second = 0;
  double run_seconds = 0;    // at that speed, without optimizer, validation and checkpoints
  double weights_bytes = 0;  // of one rank: modules, masters, main gradients and moments
  MemoryUse memory;          // after the passes
};

/// Builds the model of the first stage and runs its first micro-batch forward and backward; nothing
/// is written. All ranks of `mesh` call it. `config` is read and checked, not resolved. Throws UserError.
DryRun dry_run(const TrainConfig& config, const ModelFactory& factory, Mesh& mesh,
               torch::Device device);

}  // namespace tandem
