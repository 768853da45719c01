#pragma once
#include <nlohmann/json.hpp>
#include <string>

#include "train/plan.h"
#include "train/setup.h"
#include "train/train_step.h"
#include "train/validation.h"

// What a process says of itself when it begins to train.

namespace tandem {

/// An entry of "starts" in run.json: when, where, with what, from which weights.
nlohmann::ordered_json start_record(const Run& run, const TrainConfig& config,
                                    const nlohmann::ordered_json& weights,
                                    const std::string& command);

/// Says what is another than at the run's last start and can change the numbers of a step.
void warn_of_changes(const nlohmann::ordered_json& before, const nlohmann::ordered_json& now);

/// Logs model, FLOPs, data, steps, device and folder, and which settings have no effect.
void log_summary(const Plan& plan, const Stage& stage, const Run& run, const Sampler& sampler,
                 const std::string& run_folder);

/// Logs which documents the sources of `stage` leave out, and which settings have no effect on one.
void log_left_out(const Stage& stage, const Sampler& sampler, const Validation& validation);

}  // namespace tandem
