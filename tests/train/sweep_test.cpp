#include "train/sweep.h"

#include <gmock/gmock.h>
#include <sys/stat.h>

#include <cmath>
#include <thread>

#include "core/file.h"
#include "tests/core/helpers.h"
#include "tests/train/helpers.h"
#include "train/sweep_record.h"

namespace tandem {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

/// Stands for `tandem`: writes metrics of as many steps as it is told, one loss a step. Runs named
/// bad fail with 66, half leaves early, slow waits for a signal at its third step when it is first
/// begun.
const char* const kProgram = R"(#!/bin/sh
base=$2
for word in "$@"; do
  case "$word" in training.steps=*) steps=${word#*=} ;; esac
  if [ "$before" = --out ]; then out=$word; fi
  before=$word
done
echo "$*" >>"$(dirname "$0")/calls.txt"
mkdir -p "$out"
case "$out" in
  */bad*) echo "tandem: no such data"; exit 66 ;;
  */half*) steps=2 ;;
esac
metrics=$out/metrics.jsonl
touch "$metrics"
first=$(($(wc -l <"$metrics") + 1))
for step in $(seq "$first" "$steps"); do
  echo "{\"step\": $step, \"loss\": $((10 - step)), \"tokens\": $((78 * step)), \"seconds\": 0.5}" >>"$metrics"
  case "$out" in
    */slow*) if [ "$step" = 3 ] && [ "$first" = 1 ]; then
      trap 'echo saved; exit 130' INT
      while :; do sleep 0.01; done
    fi ;;
  esac
done
echo "{\"step\": $steps, \"validation_loss\": 1.5, \"seconds\": 9}" >>"$metrics"
)";

class SweepTest : public testing::Test {
 protected:
  void SetUp() override {
    write_file(base_, tiny_yaml(folder_.path()));
    write_file(options_.program, kProgram);
    ::chmod(options_.program.c_str(), 0755);
  }
  SweepPlan plan(const std::string& yaml) const {
    return plan_sweep(
        parse_yaml("base: " + base_ + "\nout: " + folder_ / "runs" + "\n" + yaml, "sweep.yaml"),
        "configs/sweep.yaml", tiny_factory());
  }
  std::string plan_error(const std::string& yaml) const {
    return error_of([&] { plan(yaml); }, kExitUsage);
  }
  SweepOutcome run(const SweepPlan& made) {
    testing::internal::CaptureStderr();
    SweepOutcome outcome;
    try {
      outcome = sweep(made, options_);
    } catch (...) {
      testing::internal::GetCapturedStderr();
      throw;
    }
    said_ = testing::internal::GetCapturedStderr();
    return outcome;
  }
  std::string calls() const {
    const std::string path = folder_ / "calls.txt";
    return exists(path) ? read_text(path) : "";
  }
  static std::vector<std::string> names(const SweepPlan& plan) {
    std::vector<std::string> all;
    for (const SweepRun& run : plan.runs) all.push_back(run.name);
    return all;
  }
  static std::vector<std::string> words(const SweepRun& run) {
    std::vector<std::string> all;
    for (const Setting& setting : run.settings) all.push_back(setting.word());
    return all;
  }

  TempFolder folder_;
  const std::string base_ = folder_ / "tiny.yaml";
  SweepOptions options_{.program = folder_ / "tandem", .arguments = {}};
  std::string said_;
};

// ---- what a sweep makes of its file

TEST_F(SweepTest, EveryEntryMeetsEveryCombination) {
  const SweepPlan made = plan(
      "set: {training.steps: 5}\n"
      "runs: [{name: a, group: x}, {name: b, set: {training: {seed: 3}, lr_schedule: "
      "{warmup_steps: 1}}}]\n"
      "grid: {optimizer.lr: [1e-3, 2e-3], model.n_layers: [1, 2]}\n"
      "launcher: nice  -n 3\n");
  EXPECT_THAT(names(made),
              ElementsAre("a-lr1e-3-n_layers1", "a-lr1e-3-n_layers2", "a-lr2e-3-n_layers1",
                          "a-lr2e-3-n_layers2", "b-lr1e-3-n_layers1", "b-lr1e-3-n_layers2",
                          "b-lr2e-3-n_layers1", "b-lr2e-3-n_layers2"));
  EXPECT_THAT(words(made.runs[7]),
              ElementsAre("training.steps=5", "training.seed=3", "lr_schedule.warmup_steps=1",
                          "optimizer.lr=2e-3", "model.n_layers=2"));
  EXPECT_EQ(made.runs[0].group, "x");
  EXPECT_EQ(made.runs[7].group, "b");
  EXPECT_EQ(made.name, "sweep");
  EXPECT_THAT(made.launcher, ElementsAre("nice", "-n", "3"));
  EXPECT_EQ(made.runs[3].tokens, 5 * 78);
  EXPECT_EQ(plan("grid: {training.seed: [1]}\n").runs[0].group, "tiny");
}

TEST_F(SweepTest, TheSettingsDecideTheHash) {
  const auto hash = [&](const std::string& yaml) { return plan(yaml).runs.at(0).hash; };
  const std::string one = hash("runs: [{name: a, set: {training.seed: 1}}]\n");
  EXPECT_EQ(one, hash("grid: {training.seed: [1]}\n"));  // however it is called
  EXPECT_NE(one, hash("grid: {training.seed: [2]}\n"));
  EXPECT_EQ(one.size(), 16u);
}

TEST_F(SweepTest, QuantitiesDerivedByHand) {
  const SweepPlan made = plan(
      "set: {lr_schedule.steps: null}\n"
      "grid: {model.d_model: [16, 32]}\n"
      "rules:\n"
      "  heads: {}\n"
      "  ffn: {ratio: 1.45, multiple: 8}\n"
      "  lr: {lr: 0.01, d_model: 16, power: 0.5, min_share: 0.1}\n"
      "  steps: {tokens_per_parameter: 0.5, warmup_share: 0.1}\n");
  ASSERT_EQ(made.runs.size(), 2u);
  // 16: ffn 23.2 -> 24; a layer has 4 d^2 + 3 d f + 2 d
  EXPECT_EQ(made.runs[0].parameters.non_embedding, 2 * (4 * 256 + 3 * 16 * 24 + 32) + 16);  // 4,432
  EXPECT_THAT(words(made.runs[0]),
              ElementsAre("lr_schedule.steps=null", "model.d_model=16", "model.n_heads=2",
                          "model.ffn_dim=24", "optimizer.lr=0.01", "lr_schedule.min_lr=0.001",
                          "training.steps=28", "lr_schedule.warmup_steps=3"));
  // 32: ffn 46.4 -> 48, 0.5 * 17,568 / 78 = 112.6
  EXPECT_EQ(made.runs[1].parameters.non_embedding, 2 * (4 * 1024 + 3 * 32 * 48 + 64) + 32);
  EXPECT_THAT(
      words(made.runs[1]),
      ElementsAre("lr_schedule.steps=null", "model.d_model=32", "model.n_heads=4",
                  "model.ffn_dim=48", "optimizer.lr=0.00707107", "lr_schedule.min_lr=0.000707107",
                  "training.steps=113", "lr_schedule.warmup_steps=11"));
  EXPECT_EQ(made.runs[1].tokens, 113 * 78);
  EXPECT_EQ(made.runs[1].d_model, 32);
  EXPECT_EQ(made.runs[1].lr, 0.00707107);
  EXPECT_DOUBLE_EQ(made.runs[1].compute, made.runs[1].flops_per_token * 113 * 78);
  EXPECT_EQ(made.runs[1].parameters.total - made.runs[1].parameters.non_embedding,
            2 * (made.runs[0].parameters.total - made.runs[0].parameters.non_embedding));

  const SweepPlan all = plan(
      "grid: {training.seed: [1]}\nrules: {steps: {tokens_per_parameter: 1, parameters: all}}\n");
  EXPECT_EQ(all.runs[0].steps,
            std::llround(static_cast<double>(all.runs[0].parameters.total) / 78));
  EXPECT_EQ(plan("grid: {training.seed: [1]}\nrules: {steps: {tokens: 7800}}\n").runs[0].steps,
            100);
}

TEST_F(SweepTest, BudgetsOfFlopsBecomeSteps) {
  const SweepPlan made = plan(
      "grid: {rules.steps.flops: [1e8, 4e8], model.d_model: [16, 24]}\nrules: {heads: {head_dim: "
      "8}}\n");
  EXPECT_THAT(names(made), ElementsAre("flops1e8-d_model16", "flops1e8-d_model24",
                                       "flops4e8-d_model16", "flops4e8-d_model24"));
  for (const SweepRun& run : made.runs) {
    // of the matrices, two FLOPs an element forward and twice that backward; then attention's own
    const int64_t d = run.d_model, tables = run.parameters.total - run.parameters.non_embedding;
    const double matrices = 6.0 * static_cast<double>(2 * (4 * d * d + 3 * d * 24) + tables / 2);
    EXPECT_GT(run.flops_per_token, matrices);
    EXPECT_LT(run.flops_per_token, 1.1 * matrices);
    EXPECT_EQ(run.steps, std::llround(*run.flops_budget / run.flops_per_token / 78));
    EXPECT_NEAR(run.compute / *run.flops_budget, 1, 1 / static_cast<double>(run.steps));
  }
  EXPECT_EQ(made.runs[1].flops_budget, 1e8);
}

TEST_F(SweepTest, MistakesNameLineAndKey) {
  const std::string seeds = "grid: {training.seed: [1]}\n";
  EXPECT_EQ(plan_error("girid: {}\n"),
            "sweep.yaml:3: unknown key girid; did you mean grid? known here: base, grid, launcher, "
            "out, rules, runs, set");
  EXPECT_EQ(
      plan_error("set: {training.stps: 3}\n" + seeds),
      "sweep.yaml:3: unknown key training.stps; did you mean steps? known here: batch_ramp, "
      "context_length, "
      "deterministic, dtype, micro_batch_size, recompute, seed, steps, threads, tokens_per_step");
  EXPECT_EQ(plan_error("set:\n  training.steps: none\n" + seeds),
            "sweep.yaml:4: training.steps = none, expected an integer >= 1");
  EXPECT_EQ(plan_error("set:\n  data.train[4].weight: 1\n" + seeds),
            "sweep.yaml:4: data.train[4] does not exist; data.train has 1 entries");
  EXPECT_EQ(plan_error("grid: {training.seed: 3}\n"),
            "sweep.yaml:3: grid.training.seed = 3, expected a list of values");
  EXPECT_EQ(plan_error("grid: {training.seed: []}\n"),
            "sweep.yaml:3: grid.training.seed = [], expected a list of values");
  EXPECT_EQ(plan_error("set: 3\n" + seeds),
            "sweep.yaml:3: set = 3, expected a map of keys of a training config");
  EXPECT_EQ(plan_error(""), "configs/sweep.yaml: a sweep has runs, a grid, or both");
  EXPECT_EQ(plan_error("runs: [{name: a/b}]\n"),
            "sweep.yaml:3: runs[0].name = a/b, expected letters, digits and . _ + - only, no dot "
            "in front");
  EXPECT_EQ(plan_error("runs: [{name: a}, {name: b}]\n"),
            "configs/sweep.yaml: a and b are the same training");
  EXPECT_EQ(plan_error("runs: [{name: a}, {name: a, set: {training.seed: 3}}]\n"),
            "configs/sweep.yaml: the folder of run a is not its own; name it otherwise");
  EXPECT_EQ(plan_error("runs: [{name: logs}]\n"),
            "configs/sweep.yaml: the folder of run logs is not its own; name it otherwise");
  EXPECT_EQ(
      error_of(
          [] { plan_sweep(parse_yaml("runs: [{name: a}]", "s.yaml"), "s.yaml", tiny_factory()); },
          kExitUsage),
      "s.yaml: run a has no base, expected the path of a training config");
}

TEST_F(SweepTest, MistakesOfRulesAreNamed) {
  const auto with_rules = [&](const std::string& rules, const std::string& set = "{}") {
    return plan_error("set: " + set + "\nrules: " + rules + "\ngrid: {training.seed: [1]}\n");
  };
  EXPECT_EQ(with_rules("{stps: {}}"),
            "sweep.yaml:4: unknown key rules.stps; did you mean steps? known here: ffn, heads, lr, "
            "steps");
  EXPECT_EQ(with_rules("{steps: {tokens: 9, flops: 9}}"),
            "sweep.yaml:4: rules.steps.tokens = 2 of three given, expected one of tokens, "
            "tokens_per_parameter and flops");
  EXPECT_EQ(
      with_rules("{steps: {tokens: 9, parameters: all}}"),
      "sweep.yaml:4: rules.steps.parameters = all, expected nothing without tokens_per_parameter");
  EXPECT_EQ(
      with_rules("{steps: {tokens: 9}}", "{training.steps: 9}"),
      "sweep.yaml:3: training.steps is given, and made by rules.steps too; take one of them away");
  EXPECT_EQ(
      with_rules("{heads: {head_dim: 6}}"),
      "sweep.yaml:4: rules.heads: model has d_model 16, expected a multiple of its head_dim (6)");
  EXPECT_EQ(with_rules("{ffn: {}}"),
            "sweep.yaml:4: rules.ffn: default ratio = absent, expected a number > 0");
  EXPECT_EQ(with_rules("{lr: {lr: 1e-3}}"),
            "sweep.yaml:4: rules.lr: default d_model = absent, expected an integer >= 1");
  EXPECT_EQ(
      with_rules("{steps: {tokens: 9}}", "{stages: [{steps: 3}], training.steps: null}"),
      "sweep.yaml:4: rules.steps cannot divide the steps among stages; take one of them away");
  EXPECT_EQ(with_rules("{steps: {tokens: 1e30}}").substr(0, 44),
            "sweep.yaml:4: rules.steps comes to 1e30 toke");
}

// ---- running it

const char* const kTwo =
    "set: {training.steps: 4, lr_schedule.steps: 9}\nruns: [{name: one}, {name: two, set: "
    "{training.seed: 1}}]\n";

TEST_F(SweepTest, RunsTrainOneAfterAnotherAndLeaveARecordEach) {
  options_.arguments = {"--device", "cpu"};
  const SweepPlan made = plan(kTwo);
  const SweepOutcome outcome = run(made);
  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_TRUE(outcome.failed.empty());
  const std::string runs = folder_ / "runs";
  EXPECT_EQ(calls(), "train " + base_ + " training.steps=4 lr_schedule.steps=9 --out " + runs +
                         "/one --device cpu\n" + "train " + base_ +
                         " training.steps=4 lr_schedule.steps=9 training.seed=1 --out " + runs +
                         "/two --device cpu\n");
  ASSERT_EQ(outcome.records.size(), 2u);
  const auto& record = outcome.records[1];
  EXPECT_EQ(record["sweep"], "sweep");
  EXPECT_EQ(record["run"], "two");
  EXPECT_EQ(record["group"], "two");
  EXPECT_EQ(record["hash"], made.runs[1].hash);
  EXPECT_EQ(record["folder"], runs + "/two");
  EXPECT_EQ(record["settings"].dump(),
            R"({"training.steps":4,"lr_schedule.steps":9,"training.seed":1})");
  EXPECT_EQ(record["parameters"], made.runs[1].parameters.total);
  EXPECT_EQ(record["tokens"], 4 * 78);
  EXPECT_EQ(record["compute"], made.runs[1].compute);
  EXPECT_EQ(record["train_loss"], 7.5);  // of 9, 8, 7, 6
  EXPECT_EQ(record["train_loss_steps"], 4);
  EXPECT_EQ(record["validation_loss"], 1.5);
  EXPECT_EQ(record["seconds"], 2);
  EXPECT_EQ(record["tokens_per_second"], 4 * 78 / 2.0);
  EXPECT_EQ(read_text(runs + "/sweep.jsonl"),
            outcome.records[0].dump() + "\n" + record.dump() + "\n");
  EXPECT_THAT(said_, HasSubstr("run 2 of 2: two: validation loss 1.5 in 2 s\n"));
}

TEST_F(SweepTest, FinishedRunsAreSkipped) {
  const auto first = run(plan(kTwo)).records;
  const std::string before = calls();
  const SweepOutcome again = run(plan(std::string(kTwo) + "# and no more\n"));
  EXPECT_EQ(calls(), before);
  EXPECT_EQ(again.records, first);
  EXPECT_THAT(said_, HasSubstr("run 1 of 2: one: finished before\n"));
  EXPECT_EQ(
      error_of(
          [&] {
            run(plan("set: {training.steps: 5, lr_schedule.steps: 9}\nruns: [{name: one}]\n"));
          },
          kExitUsage),
      folder_ / "runs/sweep.jsonl" +
          ":1: run one was trained with other settings; remove the line and " +
          folder_ / "runs/one" + ", or name another folder with --out");
}

TEST_F(SweepTest, WhatFailsIsReportedAndKeepsNobody) {
  const std::string yaml =
      "set: {training.steps: 4, lr_schedule.steps: 9}\n"
      "runs: [{name: bad}, {name: half, set: {training.seed: 1}}, {name: good, set: "
      "{training.seed: 2}}]\n";
  const SweepOutcome outcome = run(plan(yaml));
  EXPECT_EQ(outcome.exit_code, kExitStopped);
  ASSERT_EQ(outcome.records.size(), 1u);
  EXPECT_EQ(outcome.records[0]["run"], "good");
  ASSERT_EQ(outcome.failed.size(), 2u);
  EXPECT_EQ(outcome.failed[0].name, "bad");
  EXPECT_EQ(outcome.failed[0].code, 66);
  EXPECT_EQ(outcome.failed[0].reason, "tandem: no such data");
  EXPECT_EQ(outcome.failed[0].log, folder_ / "runs/logs/bad.txt");
  EXPECT_EQ(outcome.failed[1].name, "half");
  EXPECT_EQ(outcome.failed[1].code, 0);
  EXPECT_EQ(outcome.failed[1].reason,
            folder_ / "runs/half/metrics.jsonl" + ": ends at step 2 of 4");
  EXPECT_THAT(said_, HasSubstr("run 1 of 3: bad: failed with exit code 66, see " +
                               outcome.failed[0].log + "\n"));
  run(plan(yaml));  // tries those again, and those alone
  EXPECT_EQ(calls().find("/good --"), calls().rfind("/good --"));
  EXPECT_NE(calls().find("/bad"), calls().rfind("/bad"));
}

TEST_F(SweepTest, ASignalStopsTheRunAndTheSweepAndTheNextGoesOn) {
  const std::string yaml =
      "set: {training.steps: 5, lr_schedule.steps: 9}\nruns: [{name: slow}, {name: late, set: "
      "{training.seed: 1}}]\n";
  const std::string metrics = folder_ / "runs/slow/metrics.jsonl";
  std::thread user([&] {
    for (int i = 0; i < 5000 && last_step_of(folder_ / "runs/slow") < 3; ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    std::this_thread::sleep_for(std::chrono::milliseconds(50));  // the shell sets its trap
    ::kill(::getpid(), SIGINT);
  });
  const SweepOutcome stopped = run(plan(yaml));
  user.join();
  EXPECT_EQ(stopped.exit_code, 130);
  EXPECT_TRUE(stopped.records.empty());
  EXPECT_TRUE(stopped.failed.empty());
  EXPECT_EQ(read_text(folder_ / "runs/logs/slow.txt"), "saved\n");
  EXPECT_THAT(said_, HasSubstr("run 1 of 2: slow: stopped; the same command goes on\n"));
  EXPECT_EQ(calls().find("/late"), std::string::npos);

  const SweepOutcome done = run(plan(yaml));
  EXPECT_EQ(done.exit_code, 0);
  EXPECT_EQ(done.records.size(), 2u);
  EXPECT_THAT(said_, HasSubstr("run 1 of 2: slow: goes on after step 3 of 5\n"));
  EXPECT_EQ(last_step_of(folder_ / "runs/slow"), 5);
}

TEST_F(SweepTest, TheLauncherStandsInFront) {
  const SweepPlan made = plan("launcher: env LAUNCHED=yes nice\n" + std::string(kTwo));
  EXPECT_EQ(run(made).records.size(), 2u);
  SweepPlan wrong = made;
  wrong.folder = folder_ / "elsewhere";
  wrong.launcher = {"no_such_launcher"};
  EXPECT_EQ(error_of([&] { run(wrong); }, kExitUsage),
            "cannot start no_such_launcher: No such file or directory");
}

TEST_F(SweepTest, AFolderHasOneSweepAtATime) {
  make_directories(folder_ / "runs");
  std::string holder;
  const auto lock = FileLock::try_lock(folder_ / "runs/lock", "process 77", &holder);
  EXPECT_EQ(error_of([&] { run(plan(kTwo)); }, kExitUsage),
            folder_ / "runs" + ": another sweep is using this folder (process 77)");
}

// ---- what a run says of itself

TEST_F(SweepTest, TheLossIsSmoothedOverTheLastTwentieth) {
  std::string text;
  for (int step = 1; step <= 400; ++step) {
    const bool skipped = step == 399;
    text += "{\"step\": " + std::to_string(step) + ", \"loss\": " +
            (skipped      ? "null"
             : step > 379 ? "2"
                          : "5") +
            ", \"seconds\": 0.25" + (skipped ? ", \"skipped\": \"not finite\"" : "") + "}\n";
    if (step == 200) text += "{\"step\": 200, \"validation_loss\": 3, \"seconds\": 5}\n";
  }
  write_file(folder_ / "metrics.jsonl", text);
  const RunFacts facts = facts_of(folder_.path());
  EXPECT_EQ(facts.last_step, 400);
  EXPECT_EQ(facts.train_loss_steps, 19);  // of 399
  EXPECT_EQ(facts.train_loss, 2);
  EXPECT_EQ(facts.seconds, 100);
  EXPECT_FALSE(facts.validation_loss);  // not of the last step
  EXPECT_EQ(last_step_of(folder_.path()), 400);
  EXPECT_EQ(last_step_of(folder_ / "none"), 0);
  write_file(folder_ / "metrics.jsonl", "{\"loss\": 1}\n");
  EXPECT_EQ(
      error_of([&] { facts_of(folder_.path()); }).substr(0, (folder_ / "metrics.jsonl:1:").size()),
      folder_ / "metrics.jsonl:1:");
}

}  // namespace
}  // namespace tandem
