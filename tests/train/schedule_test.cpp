#include "train/schedule.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

namespace tandem {
namespace {

LrScheduleConfig schedule(const std::string& name, int64_t warmup_steps, int64_t steps,
                          double min_lr) {
  LrScheduleConfig config;
  config.name = name;
  config.warmup_steps = warmup_steps;
  config.steps = steps;
  config.min_lr = min_lr;
  return config;
}

TEST(ScheduleTest, WarmUpRisesLinearlyToThePeak) {
  for (const char* name : {"constant", "linear", "cosine"}) {
    const auto config = schedule(name, 7, 30, 0.1);
    for (int64_t step = 0; step < 7; ++step) {
      EXPECT_DOUBLE_EQ(learning_rate(config, 2.0, step), 2.0 * static_cast<double>(step + 1) / 7)
          << name;
    }
    EXPECT_DOUBLE_EQ(learning_rate(config, 2.0, 7), 2.0) << name;
  }
}

TEST(ScheduleTest, ConstantStays) {
  LrScheduleConfig config = schedule("constant", 0, 1, 0);
  config.steps.reset();
  EXPECT_EQ(learning_rate(config, 0.3, 0), 0.3);
  EXPECT_EQ(learning_rate(config, 0.3, 1'000'000), 0.3);
}

TEST(ScheduleTest, LinearFallsByTheSameEachStep) {
  const auto config = schedule("linear", 3, 13, 0.5);
  for (int64_t step = 3; step <= 13; ++step) {
    EXPECT_NEAR(learning_rate(config, 2.5, step), 2.5 - 0.2 * static_cast<double>(step - 3), 1e-14);
  }
  EXPECT_EQ(learning_rate(config, 2.5, 14), 0.5);
}

TEST(ScheduleTest, CosineFollowsHalfAWave) {
  const auto config = schedule("cosine", 5, 25, 1.0);
  for (int64_t step = 5; step <= 25; ++step) {
    const double wave = std::cos(std::numbers::pi * static_cast<double>(step - 5) / 20);
    EXPECT_NEAR(learning_rate(config, 3.0, step), 2.0 + wave, 1e-14);
  }
  EXPECT_EQ(learning_rate(config, 3.0, 400), 1.0);
}

TEST(ScheduleTest, WarmupStableDecayFallsAtTheEndOnly) {
  auto config = schedule("warmup_stable_decay", 4, 20, 0.2);
  config.decay_steps = 5;
  for (int64_t step = 4; step <= 15; ++step)
    EXPECT_EQ(learning_rate(config, 1.2, step), 1.2) << step;
  for (int64_t step = 16; step <= 20; ++step) {
    EXPECT_NEAR(learning_rate(config, 1.2, step), 1.2 - 0.2 * static_cast<double>(step - 15), 1e-14)
        << step;
  }
  EXPECT_EQ(learning_rate(config, 1.2, 21), 0.2);
}

}  // namespace
}  // namespace tandem
