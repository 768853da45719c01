#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "train/train_config.h"

namespace tandem {

/// One part of a run: steps [begin, end) under one config.
struct Stage {
  int64_t index = 0;
  int64_t begin = 0, end = 0;
  TrainConfig config;  // resolved, without `stages`; training.steps is the whole run's
  Packing packing;     // how its model wants its rows
  int64_t schedule_begin =
      0;  // step from which lr_schedule counts: where the newest stage that writes one began
  int64_t ramp_begin = 0;  // the same of training.batch_ramp
  int64_t samples_begin =
      0;  // step whose first sample is number 0: where the newest stage that reads other rows began
};

/// "stages[1]", as messages call it.
std::string name_of_stage(int64_t i);

/// What a run does at which step. Without `stages` it has one stage; with them, stage i is the
/// config with the overrides of stages 0 .. i put over it, for the `steps` of stage i, which add up
/// to training.steps. A stage that writes lr_schedule or batch_ramp starts it anew; one whose rows
/// are other ones (context_length, sources, shuffle, masking, padding) counts its samples from 0.
class Plan {
 public:
  /// `config` is read and checked, not resolved. Resolves it for so many data ranks. Throws UserError naming the stage
  /// where a stage is wrong on its own, writes what must not change within a run (tokenizer, seed,
  /// dtype, threads, init, the shapes of parameters), or is not a map with `steps`; where rows are
  /// not what the model can read.
  Plan(TrainConfig config, const ModelFactory& factory, const Tokenizer& tokenizer, int64_t data_ranks = 1);

  int64_t steps() const { return stages_.back().end; }
  const std::vector<Stage>& stages() const { return stages_; }
  /// The stage of step `step`, counted from 0; the last one past the end.
  const Stage& at(int64_t step) const;
  /// The whole config, as config.yaml of the run shows it: resolved, or with stages as it was given
  /// and the threads.
  const TrainConfig& config() const { return config_; }

  int64_t rows(int64_t step)
      const;  ///< sequences that optimizer step `step` learns from: a multiple of micro_batch_size
  double lr(int64_t step) const;  ///< its learning rate
  int64_t first_sample(
      int64_t step) const;  ///< number of its first sample when no rollback has left any out
  int64_t tokens_before(int64_t step) const;  ///< learnt from in steps 0 .. step - 1
  /// A checkpoint is due once `step` steps are done: every checkpoint.every, at the end of each
  /// stage and of the run.
  bool checkpoint_due(int64_t step) const;

 private:
  TrainConfig config_;
  std::vector<Stage> stages_;
};

}  // namespace tandem
