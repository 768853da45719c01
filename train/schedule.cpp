#include "train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace tandem {

double learning_rate(const LrScheduleConfig& schedule, double peak, int64_t step) {
  if (step < schedule.warmup_steps)
    return peak * static_cast<double>(step + 1) / static_cast<double>(schedule.warmup_steps);
  if (schedule.name == "constant") return peak;

  const bool stable_first = schedule.name == "warmup_stable_decay";
  const int64_t end = schedule.steps.value();
  const int64_t begin = stable_first ? end - schedule.decay_steps.value() : schedule.warmup_steps;
  const double over =
      std::clamp(static_cast<double>(step - begin) / static_cast<double>(end - begin), 0.0, 1.0);
  const double left =
      schedule.name == "cosine" ? 0.5 * (1 + std::cos(std::numbers::pi * over)) : 1 - over;
  return schedule.min_lr + (peak - schedule.min_lr) * left;
}

}  // namespace tandem
