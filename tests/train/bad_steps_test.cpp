#include <gtest/gtest.h>

#include <numeric>

#include "tests/train/poisoned_model.h"

// Losses that are not finite or jump, and what the policies of bad_steps make of them. A step has 6
// samples: step n (counted from 1) those from 6 (n - 1) on.

namespace tandem {
namespace {

class BadStepsTest : public testing::Test {
 protected:
  TrainOutcome run(const std::string& name, const std::string& policies,
                   std::optional<int64_t> stop_at = {}) {
    return train_tiny(folder_, name,
                      {"training.steps=16", "lr_schedule={name: constant}", "checkpoint.every=5",
                       "checkpoint.keep=2", "bad_steps=" + policies},
                      stop_at, factory_);
  }
  nlohmann::ordered_json state(const std::string& name, int64_t step) {
    return Checkpoint(checkpoint_folder(folder_ / name, step)).state();
  }
  /// Steps whose metrics say that nothing was updated, and why.
  std::map<int64_t, std::string> bad_steps(const std::string& name) {
    std::map<int64_t, std::string> bad;
    for (const auto& line : metrics_of(folder_ / name)) {
      if (line.contains("skipped")) bad[line.at("step")] = line.at("skipped");
    }
    return bad;
  }
  std::string log(const std::string& name) { return read_text(folder_ / (name + "/log.txt")); }
  void expect_same(const std::string& a, const std::string& b) {
    EXPECT_EQ(metrics_of(folder_ / a), metrics_of(folder_ / b));
    EXPECT_TRUE(bytes_of_folder(checkpoint_folder(folder_ / a, 16)) ==
                bytes_of_folder(checkpoint_folder(folder_ / b, 16)));
  }
  TempFolder folder_;
  ModelFactory factory_ = tiny_factory();
};

constexpr const char* kSkip = "{spike: skip, spike_window: 6}";
constexpr const char* kRollBack = "{non_finite: rollback, spike: rollback, spike_window: 6}";

TEST_F(BadStepsTest, NoStepIsBadWithoutPoison) {
  EXPECT_EQ(run("run", kRollBack).exit_code, 0);
  EXPECT_TRUE(bad_steps("run").empty());
  EXPECT_EQ(state("run", 16).at("rollbacks"), 0);
}

TEST_F(BadStepsTest, SkippedStepsChangeNothing) {
  factory_ = poisoned_factory({{6 * 3, Poison::kNaN}, {6 * 11 + 5, Poison::kSpike}});
  EXPECT_EQ(run("run", kSkip).exit_code, 0);
  EXPECT_EQ(bad_steps("run"), (std::map<int64_t, std::string>{{4, "not finite"}, {12, "spike"}}));
  EXPECT_EQ(state("run", 16).at("skipped"), 2);
  EXPECT_EQ(state("run", 16).at("skipped_in_a_row"), 0);
  EXPECT_EQ(state("run", 16).at("next_sample"), 16 * 6);
}

TEST_F(BadStepsTest, SpikesAreLearntFromUnlessAskedOtherwise) {
  factory_ = poisoned_factory({{6 * 11 + 5, Poison::kSpike}});
  EXPECT_EQ(run("run", "{non_finite: skip}").exit_code, 0);
  EXPECT_TRUE(bad_steps("run").empty());
  EXPECT_FALSE(state("run", 16).contains("losses"));
}

TEST_F(BadStepsTest, TooManySkippedInARowStop) {
  factory_ = poisoned_factory({{6, Poison::kNaN},
                               {12, Poison::kNaN},
                               {30, Poison::kNaN},
                               {36, Poison::kNaN},
                               {42, Poison::kNaN}});
  const TrainOutcome outcome = run("run", "{max_skips: 3}");
  EXPECT_EQ(outcome.exit_code, kExitStopped);
  EXPECT_EQ(outcome.step, 8);
  EXPECT_NE(log("run").find("stopped after step 8 by bad_steps: 3 in a row changed no weight, 0 "
                            "rollbacks; the last checkpoint is " +
                            checkpoint_folder(folder_ / "run", 5)),
            std::string::npos);
}

TEST_F(BadStepsTest, StopStopsAtTheFirst) {
  factory_ = poisoned_factory({{6 * 9, Poison::kSpike}});
  const TrainOutcome outcome = run("run", "{spike: stop, spike_window: 6}");
  EXPECT_EQ(outcome.exit_code, kExitStopped);
  EXPECT_EQ(outcome.step, 10);
  EXPECT_EQ(checkpoint_steps(folder_ / "run"), std::vector<int64_t>{5});
  EXPECT_EQ(run("run", kSkip).exit_code, 0);  // another policy takes it from there
}

TEST_F(BadStepsTest, RollingBackLeavesTheSamplesOut) {
  factory_ = poisoned_factory({{6 * 12 + 1, Poison::kSpike}});  // in step 13
  EXPECT_EQ(run("run", kRollBack).exit_code, 0);
  EXPECT_TRUE(bad_steps("run").empty());  // the steps that counted were good ones
  EXPECT_EQ(state("run", 16).at("rollbacks"), 1);
  // Back from 13 to 10: the samples of steps 11 to 13 were left out.
  EXPECT_EQ(state("run", 16).at("next_sample"), (16 + 3) * 6);
  EXPECT_NE(log("run").find(
                "step 13 was bad: back to step 10, going on with sample 78 (rollback 1 of 3)"),
            std::string::npos)
      << log("run");
  std::vector<int64_t> steps;
  for (const auto& line : metrics_of(folder_ / "run")) {
    if (line.contains("loss")) steps.push_back(line.at("step"));
  }
  std::vector<int64_t> each(16);
  std::iota(each.begin(), each.end(), 1);
  EXPECT_EQ(steps, each);
}

TEST_F(BadStepsTest, RollingBackBeforeTheFirstCheckpointBeginsAgain) {
  factory_ = poisoned_factory({{6 * 3, Poison::kNaN}});
  EXPECT_EQ(run("run", kRollBack).exit_code, 0);
  EXPECT_EQ(state("run", 16).at("next_sample"), (16 + 4) * 6);
  EXPECT_EQ(state("run", 16).at("rollbacks"), 1);
}

TEST_F(BadStepsTest, ARunThatWasStoppedRollsBackAsOneThatWasNot) {
  factory_ = poisoned_factory({{6 * 12 + 1, Poison::kSpike}, {6 * 16, Poison::kNaN}});
  run("whole", kRollBack);
  EXPECT_EQ(state("whole", 16).at("rollbacks"), 2);
  for (const int64_t stop_at : {3, 11, 12})
    run("part", kRollBack, stop_at);  // 11 and 12 leave checkpoints past step 10
  run("part", kRollBack);
  expect_same("part", "whole");
}

TEST_F(BadStepsTest, ARollbackGoesWhereCheckpointsWereDueWhateverIsDueNow) {
  factory_ = poisoned_factory({{6 * 12 + 1, Poison::kSpike}});
  run("run", kRollBack, 11);
  EXPECT_EQ(train_tiny(folder_, "run",
                       {"training.steps=16", "lr_schedule={name: constant}", "checkpoint.every=100",
                        "checkpoint.keep=1", std::string("bad_steps=") + kRollBack},
                       {}, factory_)
                .exit_code,
            0);
  EXPECT_NE(log("run").find("step 13 was bad: back to step 10, "), std::string::npos) << log("run");
}

TEST_F(BadStepsTest, NothingIsLostWhereTheTargetOfARollbackIsDamaged) {
  factory_ = poisoned_factory({{6 * 12 + 1, Poison::kSpike}});
  run("run", kRollBack, 11);
  const std::string model = checkpoint_folder(folder_ / "run", 10) + "/model.safetensors";
  std::string bytes = file_bytes(model);
  bytes.back() = static_cast<char>(bytes.back() ^ 1);
  write_file(model, bytes);
  EXPECT_TRUE(error_of([&] { run("run", kRollBack); }).starts_with(model + ": tensor "));
  EXPECT_EQ(checkpoint_steps(folder_ / "run").back(), 11);
}

TEST_F(BadStepsTest, TooManyRollbacksStop) {
  factory_ =
      poisoned_factory({{6 * 6, Poison::kNaN}, {6 * 8, Poison::kNaN}, {6 * 9, Poison::kNaN}});
  const TrainOutcome outcome = run("run", "{non_finite: rollback, max_rollbacks: 1}");
  EXPECT_EQ(outcome.exit_code, kExitStopped);
  EXPECT_NE(log("run").find(
                "by bad_steps: 1 in a row changed no weight, 1 rollbacks; the last checkpoint is " +
                checkpoint_folder(folder_ / "run", 5)),
            std::string::npos)
      << log("run");
}

}  // namespace
}  // namespace tandem
