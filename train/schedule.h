#pragma once
#include <cstdint>

#include "train/train_config.h"

namespace tandem {

/// The learning rate of optimizer step `step`, counted from 0. `schedule` is resolved. Warm-up:
/// step s gets peak * (s + 1) / warmup_steps. After it, with p the share of the steps from there to
/// schedule.steps that are over: constant peak; linear and cosine fall from peak (p = 0) to min_lr
/// (p = 1); warmup_stable_decay stays at peak and falls linearly over the last decay_steps. Past
/// schedule.steps it stays at min_lr.
double learning_rate(const LrScheduleConfig& schedule, double peak, int64_t step);

}  // namespace tandem
