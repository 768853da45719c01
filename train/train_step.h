#pragma once
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/packing.h"
#include "nn/language_model.h"
#include "nn/layer_runner.h"
#include "train/metrics.h"
#include "train/optimizer.h"
#include "train/spike.h"
#include "train/train_config.h"

namespace tandem {

/// What changes while a run trains. All of it is in a checkpoint; all else of a step follows from
/// (config, step).
struct Run {
  std::shared_ptr<LanguageModel> model;
  std::unique_ptr<Optimizer> optimizer;
  std::unique_ptr<LayerRunner> runner;  // how layers run; none: plainly
  torch::Device device = torch::kCPU;
  int64_t step = 0;              // done
  int64_t next_sample = 0;       // first of the next step
  int64_t skipped = 0;           // steps that changed no weight
  int64_t skipped_in_a_row = 0;  // up to now
  int64_t rollbacks = 0;
  int64_t last_due = 0;  // step of the newest checkpoint that was due: where a rollback goes
  std::optional<SpikeDetector> spikes;  // none: losses may jump
};

/// Throws UserError (exit code 66) where `rows` hold an id that the model has not: `what`, such as
/// "the training data", is of another tokenizer.
void check_ids(const RowsView& rows, int64_t vocab_size, const std::string& what);

/// One forward and backward pass over each micro-batch of `rows`, weighted so that the gradients
/// add up to those of the mean NLL over all scored targets of the step. Returns that mean, float64,
/// one element on the device. `rows` are the caller's until the device is done with them; their
/// targets of weight 0 become unscored.
Tensor accumulate_gradients(Run& run, const RowsView& rows, const TrainConfig& config);

/// Optimizer step number run.step on `rows` with learning rate `lr`; counts it and its samples, and
/// is done with them. A step that is not finite, or a spike under run.spikes, changes no weight. Seconds of the result
/// are the caller's to add.
StepStats train_step(Run& run, const RowsView& rows, const TrainConfig& config, double lr);

}  // namespace tandem
