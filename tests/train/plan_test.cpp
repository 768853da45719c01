#include "train/plan.h"

#include <gtest/gtest.h>

#include "tests/train/helpers.h"
#include "train/schedule.h"

namespace tandem {
namespace {

class PlanTest : public testing::Test {
 protected:
  Plan plan(const std::vector<std::string>& words) {
    return Plan(tiny_config(folder_.path(), words), tiny_factory(), *load_tokenizer("bytes"));
  }
  std::string error(const std::vector<std::string>& words) {
    return error_of([&] { plan(words); }, kExitUsage);
  }
  /// tiny.yaml has 9 steps, and a stage may not say otherwise.
  std::string staged_error(const std::string& stages) {
    return error({kNoSteps, "stages=" + stages});
  }
  static constexpr const char* kNoSteps =
      "training={context_length: 13, tokens_per_step: 78, micro_batch_size: 2, seed: 5, threads: "
      "1}";
  static constexpr const char* kLinear = "lr_schedule={name: linear, min_lr: 0}";
  TempFolder folder_;
};

TEST_F(PlanTest, WithoutStagesThereIsOne) {
  const Plan plan = this->plan({});
  ASSERT_EQ(plan.stages().size(), 1u);
  EXPECT_EQ(plan.steps(), 9);
  for (int64_t step = 0; step < 9; ++step) {
    EXPECT_EQ(plan.rows(step), 6);
    EXPECT_EQ(plan.tokens_before(step), 78 * step);
    EXPECT_EQ(plan.lr(step), learning_rate(plan.config().lr_schedule, 0.01, step));
  }
}

TEST_F(PlanTest, StagesKeepWhatTheOnesBeforeThemChanged) {
  const Plan plan = this->plan(
      {kNoSteps, kLinear,
       "stages=[{steps: 4}, {steps: 3, training: {context_length: 39}, optimizer: {lr: 0.02}}, "
       "{steps: 5, model: {rope: {base: 77}}}]"});
  ASSERT_EQ(plan.stages().size(), 3u);
  EXPECT_EQ(plan.steps(), 12);
  EXPECT_EQ(plan.config().training.steps, 12);
  EXPECT_EQ(plan.at(3).index, 0);
  EXPECT_EQ(plan.at(4).index, 1);
  EXPECT_EQ(plan.at(11).index, 2);
  EXPECT_EQ(plan.at(12).index, 2);
  EXPECT_EQ(plan.stages()[0].config.training.context_length, 13);
  for (const size_t i : {1, 2}) {
    EXPECT_EQ(plan.stages()[i].config.training.context_length, 39);
    EXPECT_EQ(plan.stages()[i].config.optimizer.lr, 0.02);
  }
  const auto base = [&](size_t i) {
    return plan.stages()[i].config.model.as<TransformerConfig>().rope.base;
  };
  EXPECT_EQ(base(1), 10000.0);
  EXPECT_EQ(base(2), 77.0);
  EXPECT_EQ(plan.rows(3), 6);
  EXPECT_EQ(plan.rows(4), 2);
  EXPECT_EQ(plan.stages()[0].samples_begin, 0);
  EXPECT_EQ(plan.stages()[1].samples_begin, 4);  // longer rows: other samples, counted anew
  EXPECT_EQ(plan.stages()[2].samples_begin,
            4);  // the third stage reads on where the second stopped
  EXPECT_EQ(plan.tokens_before(12), 12 * 78);
  // One schedule from start to end, of a peak that changes.
  EXPECT_DOUBLE_EQ(plan.lr(3), 0.01 * (1 - 3.0 / 12));
  EXPECT_DOUBLE_EQ(plan.lr(4), 0.02 * (1 - 4.0 / 12));
}

TEST_F(PlanTest, AStageThatWritesAScheduleStartsItAnew) {
  const Plan plan = this->plan({kNoSteps, kLinear,
                                "stages=[{steps: 4}, {steps: 6, lr_schedule: {name: linear, "
                                "warmup_steps: 2}}, {steps: 2}]"});
  EXPECT_EQ(plan.stages()[0].config.lr_schedule.steps, 4);
  EXPECT_EQ(plan.stages()[1].config.lr_schedule.steps, 8);
  EXPECT_EQ(plan.stages()[2].schedule_begin, 4);
  EXPECT_DOUBLE_EQ(plan.lr(3), 0.01 / 4);
  EXPECT_DOUBLE_EQ(plan.lr(4), 0.005);  // the first of two warm-up steps
  EXPECT_DOUBLE_EQ(plan.lr(6), 0.01);
  EXPECT_DOUBLE_EQ(plan.lr(11), 0.01 / 6);  // the third stage goes on with it
}

TEST_F(PlanTest, TheBatchGrowsInWholeMicroBatches) {
  const Plan plan = this->plan({"training.batch_ramp={from: 26, steps: 6}"});
  std::vector<int64_t> rows;
  for (int64_t step = 0; step < 9; ++step) rows.push_back(plan.rows(step));
  // 26 + 52 * step / 6 tokens are 26, 34, 43, 52, 60, 69 and then 78; a micro-batch has 26.
  EXPECT_EQ(rows, (std::vector<int64_t>{2, 2, 2, 4, 4, 4, 6, 6, 6}));
  EXPECT_EQ(plan.tokens_before(4), 10 * 13);
  EXPECT_EQ(error({"training.batch_ramp={from: 79, steps: 6}"}),
            "command line: training.batch_ramp = {from: 79, ...}, expected from at most "
            "tokens_per_step (78)");
}

TEST_F(PlanTest, CheckpointsAreDueAtTheEndOfStagesToo) {
  const Plan plan = this->plan({kNoSteps, kLinear, "checkpoint.every=3",
                                "stages=[{steps: 5}, {steps: 4, checkpoint: {every: 2}}]"});
  std::vector<int64_t> due;
  for (int64_t step = 0; step <= 9; ++step) {
    if (plan.checkpoint_due(step)) due.push_back(step);
  }
  EXPECT_EQ(due, (std::vector<int64_t>{3, 5, 6, 8, 9}));
}

TEST_F(PlanTest, WhatIsWrongWithAStageIsNamed) {
  EXPECT_EQ(staged_error("[]"),
            "command line: stages = [], expected a list of maps, each with steps and what changes");
  EXPECT_EQ(
      staged_error("[{training: {context_length: 26}}]"),
      "command line: stages[0] = {training: {context_length: 26}}, expected a map with steps");
  EXPECT_EQ(staged_error("[{steps: 0}]"),
            "command line: stages[0].steps = 0, expected an integer >= 1");
  EXPECT_EQ(
      staged_error("[{steps: 9, optimizer: {lrr: 1}}]"),
      "stages[0]: command line: unknown key optimizer.lrr; did you mean lr? known here: betas, "
      "clip_norm, eps, groups, lr, name, weight_decay");
  EXPECT_EQ(
      staged_error("[{steps: 9}, {steps: 1, training: {seed: 6}}]"),
      "command line: stages[1].training.seed stands in a stage, but stays the same for a whole "
      "run");
  EXPECT_EQ(staged_error("[{steps: 9}, {steps: 1, init: {from: x}}]"),
            "command line: stages[1].init stands in a stage, but stays the same for a whole run");
  EXPECT_EQ(
      staged_error("[{steps: 9}, {steps: 1, model: {n_layers: 3}}]"),
      "command line: stages[1].model changes the shapes of parameters; a stage may change what "
      "has none, such as rope or window");
  EXPECT_EQ(staged_error(
                "[{steps: 9}, {steps: 1, lr_schedule: {name: linear, steps: 1, warmup_steps: 1}}]"),
            "stages[1]: command line: lr_schedule.warmup_steps = 1, expected less than steps (1)");
  EXPECT_EQ(
      error(
          {kNoSteps, "lr_schedule={name: linear, warmup_steps: 2}",
           "stages=[{steps: 1, lr_schedule: {min_lr: 0}}, {steps: 9, lr_schedule: {min_lr: 0}}]"}),
      "command line: stages[0]: lr_schedule.warmup_steps = 2, expected less than 1, the steps "
      "of the schedule");
  EXPECT_EQ(error({kNoSteps, "lr_schedule={name: linear, warmup_steps: 2}",
                   "stages=[{steps: 9}, {steps: 5, lr_schedule: {name: warmup_stable_decay, "
                   "decay_steps: 6}}]"}),
            "command line: stages[1]: lr_schedule.decay_steps = 6, expected at most 3, the steps of "
            "the schedule less its warm-up");
  EXPECT_EQ(staged_error("[{steps: 9}, {steps: 5, checkpoint: {async: false}}]"),
            "command line: stages[1].checkpoint.async stands in a stage, but stays the same for a "
            "whole run");
  EXPECT_EQ(
      error({"stages=[{steps: 3}, {steps: 7}]"}),
      "tiny.yaml:6: training.steps = 9, expected the sum of the stages' steps (10), or nothing");
}

}  // namespace
}  // namespace tandem
