#pragma once
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "train/sweep_plan.h"

namespace tandem {

/// What a run's metrics.jsonl says at its end.
struct RunFacts {
  int64_t last_step = 0;                  // 0: no step was taken
  double train_loss = 0;                  // mean over the last `train_loss_steps` steps
  int64_t train_loss_steps = 0;           // a twentieth of the steps, at least 10
  std::optional<double> validation_loss;  // of the last step
  double seconds = 0;                     // of all steps
};
/// Throws UserError where the file is missing or is no metrics file.
RunFacts facts_of(const std::string& run_folder);

/// The last step that a run's metrics.jsonl names; 0 where it is not there. Reads its end only.
int64_t last_step_of(const std::string& run_folder);

/// What a run is and will cost; of a dry run, and the beginning of a record.
nlohmann::ordered_json describe(const SweepPlan& plan, const SweepRun& run);
/// A line of sweep.jsonl. Throws bad_file where the run did not come to its last step.
nlohmann::ordered_json record_of(const SweepPlan& plan, const SweepRun& run);

std::string folder_of(const SweepPlan& plan, const SweepRun& run);

}  // namespace tandem
