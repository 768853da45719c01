#pragma once
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "train/sweep_plan.h"

namespace tandem {

struct SweepOptions {
  std::string program;                 // tandem
  std::vector<std::string> arguments;  // that every `tandem train` gets, such as --device cpu
};

struct FailedRun {
  std::string name;
  int code = 0;        // of the program: what it left with, or 128 + the signal that ended it
  std::string reason;  // where the code does not tell
  std::string log;     // what it printed
};

struct SweepOutcome {
  int exit_code = 0;  // 0 done; 3 runs failed; 130 or 143 stopped by a signal
  std::vector<nlohmann::ordered_json> records;  // of the finished runs, in the plan's order
  std::vector<FailedRun> failed;
};

/// Trains the runs of `plan` one after another, each as `LAUNCHER PROGRAM train BASE KEY=VALUE...
/// --out FOLDER/NAME`. Runs with a record in FOLDER/sweep.jsonl are skipped, others go on where
/// they stopped, as `tandem train` does by itself; what fails does not keep the others. A signal is
/// passed to the run, which saves, and ends the sweep. Throws UserError where another sweep uses
/// the folder or has trained another config under a run's name.
SweepOutcome sweep(const SweepPlan& plan, const SweepOptions& options);

}  // namespace tandem
