#pragma once
#include <functional>
#include <optional>
#include <string>

#include "comm/mesh.h"
#include "nn/model_factory.h"
#include "train/train_config.h"

namespace tandem {

struct TrainOptions {
  std::string run_folder;
  torch::Device device = torch::kCPU;
  std::string command;  // as typed, for run.json
  int64_t ranks_of_machine = 1;  // processes that share its cores
  /// Called with what this rank begins to do.
  std::function<void(int64_t step, const char* what)> report = [](int64_t, const char*) {};
  Mesh* mesh = &this_process();  // whose ranks all call train() with the same arguments
  /// >= 1: leave after this step, saving as at a signal; at once when it is done already.
  std::optional<int64_t> stop_at;
};

struct TrainOutcome {
  int exit_code = 0;  // 0 done, 3 stopped by its own policy, 74 its last state could not be
                      // saved, 130 or 143 stopped by a signal
  int64_t step = 0;
  std::optional<double> loss, validation_loss;  // the last ones of this process
  std::string checkpoint;                       // folder of the newest one; empty = none
};

/// Trains as `config` says (read and checked, not resolved) until training.steps, a signal or
/// stop_at, resuming by itself from the newest checkpoint of the run folder that verifies. Resuming
/// gives the bits of never having stopped: a step is a function of the checkpoint, the config and
/// its number. Steps that are not finite, or
/// losses that jump, may end it with 3, as bad_steps says. Ranks come to one outcome: what one of
/// them decides, or is told by a signal, all do. Throws UserError; PeerLost where a rank is gone.
TrainOutcome train(TrainConfig config, const ModelFactory& factory, const TrainOptions& options);

}  // namespace tandem
