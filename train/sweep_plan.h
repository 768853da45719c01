#pragma once
#include <optional>
#include <string>
#include <vector>

#include "nn/model_factory.h"
#include "train/sweep_rules.h"

namespace tandem {

/// One run of a sweep, all of it decided, and what it will cost.
struct SweepRun {
  std::string name, group;
  std::string base;               // the training config
  std::vector<Setting> settings;  // over it, those of rules last
  std::string hash;               // of the config that this gives: 16 hex digits
  std::string family;
  int64_t d_model = 0;  // 0: the config writes none
  double lr = 0;
  ModelSize parameters;
  int64_t context_length = 0;  // of the first stage, as are FLOPs and state
  double flops_per_token = 0;  // of training
  int64_t state_bytes = 0;     // of one row of context_length tokens
  int64_t steps = 0, tokens = 0;
  double compute = 0;                  // FLOPs of the run, without validation
  std::optional<double> flops_budget;  // that the rule of its steps had
};

struct SweepPlan {
  std::string name;    // of the file
  std::string folder;  // of the runs
  std::vector<std::string> launcher;
  std::vector<SweepRun> runs;
  double compute() const {
    double sum = 0;
    for (const SweepRun& run : runs) sum += run.compute;
    return sum;
  }
};

/// Every run of the sweep in `root`, which was read from `path`. Builds each model on the meta
/// device; token files are not opened, and a tokenizer that does not exist is not needed where the
/// model writes its vocab_size. Throws UserError naming file and line.
SweepPlan plan_sweep(const ConfigNode& root, const std::string& path, const ModelFactory& factory);

}  // namespace tandem
