#pragma once
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "comm/mesh.h"
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
  Mesh* mesh = &this_process();
  torch::Device device = torch::kCPU;
  int64_t step = 0;              // done
  int64_t next_sample = 0;       // first of the next step
  int64_t skipped = 0;           // steps that changed no weight
  int64_t skipped_in_a_row = 0;  // up to now
  int64_t rollbacks = 0;
  int64_t last_due = 0;  // step of the newest checkpoint that was due: where a rollback goes
  std::optional<SpikeDetector> spikes;  // none: losses may jump
};

/// How its layers run and which ranks divide its rows.
ForwardContext context_of(const Run& run);

/// Throws UserError (exit code 66) where `rows` hold an id that the model has not: `what`, such as
/// "the training data", is of another tokenizer.
void check_ids(const RowsView& rows, int64_t vocab_size, const std::string& what);

/// Which of a step's micro-batches a rank has: [first, first + n) of `total`.
struct MicroBatches {
  int64_t first = 0, n = 0, total = 0;
};
/// Those of this rank of mesh.data: [r total / W, (r + 1) total / W), so that the ranks in their
/// order have the step.
MicroBatches share_of(int64_t total, const Mesh& mesh);

/// One forward and backward pass over each of this rank's micro-batches, whose rows `rows` are,
/// weighted so that the gradients of all ranks add up to those of the mean NLL over all scored
/// targets of the step. They are summed when it returns. Returns that mean, float64, one element on
/// the device, the same on all ranks. `rows` are the caller's until the device is done with them;
/// their targets of weight 0 become unscored.
Tensor accumulate_gradients(Run& run, const RowsView& rows, const MicroBatches& share,
                            const TrainConfig& config);

/// Optimizer step number run.step on `rows`, this rank's of the step, with learning rate `lr`;
/// counts it and its samples, and is done with them. A step that is not finite, or a spike under
/// run.spikes, changes no weight, on any rank. Seconds of the result are the caller's to add.
StepStats train_step(Run& run, const RowsView& rows, const MicroBatches& share,
                     const TrainConfig& config, double lr);

}  // namespace tandem
