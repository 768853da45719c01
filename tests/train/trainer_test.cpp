#include "train/trainer.h"

#include <gtest/gtest.h>

#include <cmath>

#include "nn/checkpoint.h"
#include "tests/nn/helpers.h"
#include "tests/nn/tiny_model.h"
#include "tests/train/helpers.h"
#include "train/dry_run.h"
#include "train/setup.h"
#include "train/train_step.h"

namespace tandem {
namespace {

TEST(TrainerTest, LearnsToCount) {
  const TempFolder folder;
  const TrainOutcome outcome =
      train_tiny(folder, "run", {"training.steps=60", "lr_schedule.steps=60"});
  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_EQ(outcome.step, 60);
  EXPECT_EQ(outcome.checkpoint, folder / "run/checkpoints/step-00000060");
  const auto metrics = metrics_of(folder / "run");
  EXPECT_NEAR(metrics.front().at("loss").get<double>(), std::log(258),
              0.5);  // nothing is known yet
  EXPECT_LT(*outcome.loss, 0.8 * std::log(258));
  EXPECT_LT(*outcome.validation_loss, std::log(258));
}

TEST(TrainerTest, ARunLeavesEverythingItShould) {
  const TempFolder folder;
  train_tiny(folder, "run");
  EXPECT_EQ(list_directory(folder / "run"),
            (std::vector<std::string>{"checkpoints", "config.yaml", "lock", "log.txt",
                                      "metrics.jsonl", "run.json", "tb"}));
  EXPECT_EQ(list_directory(folder / "run/checkpoints"),
            (std::vector<std::string>{"step-00000006", "step-00000008", "step-00000009"}));
  std::vector<std::string> lines;
  for (const auto& line : metrics_of(folder / "run")) {
    lines.push_back((line.contains("loss") ? "step " : "validation ") + line.at("step").dump());
  }
  EXPECT_EQ(lines, (std::vector<std::string>{"step 1", "step 2", "step 3", "step 4", "validation 4",
                                             "step 5", "step 6", "step 7", "step 8", "validation 8",
                                             "step 9", "validation 9"}));
  const auto run = read_json(folder / "run/run.json");
  EXPECT_EQ(run.at("starts").size(), 1u);
  EXPECT_EQ(run.at("starts")[0].at("weights"), "random");
  EXPECT_EQ(run.at("starts")[0].at("threads"), 1);
  const Checkpoint checkpoint(folder / "run/checkpoints/step-00000009");
  EXPECT_EQ(checkpoint.config_yaml(), read_text(folder / "run/config.yaml"));
  EXPECT_EQ(checkpoint.state().at("next_sample"), 9 * 6);
  const std::string log = read_text(folder / "run/log.txt");
  for (const char* part :
       {"model: transformer, ", "FLOPs per token of training: ", "step: 1  loss: ",
        "validate step: 4  loss: ", "step: 8  loss: ", "finished after step 9"}) {
    EXPECT_NE(log.find(part), std::string::npos) << part << " is not in\n" << log;
  }
  EXPECT_EQ(log.find("step: 2  loss: "), std::string::npos);  // log_every is 4
}

/// Gradients and loss of 12 rows in micro-batches of `size`, in float64, with targets spread
/// unevenly over the rows.
std::pair<Tensor, Tensors> gradients_in(const TempFolder& folder, int64_t size) {
  TrainConfig config = tiny_config(
      folder.path(),
      {"training.tokens_per_step=156", "training.micro_batch_size=" + std::to_string(size)});
  resolve(config, tiny_factory(), *load_tokenizer("bytes"));
  tandem::Run run;
  run.model = tiny_factory().build(config.model);
  materialise_random(*run.model, 3);
  run.optimizer = std::make_unique<Optimizer>(*run.model, torch::kFloat64, config.optimizer);
  const auto sampler = make_sampler(config, {});
  std::vector<Row> rows;
  for (int64_t i = 0; i < 12; ++i) {
    rows.push_back(sampler->row(i));
    for (int64_t t = 0; t < i; ++t) rows.back().targets[t] = kIgnored;
  }
  const auto packed = pack_rows(rows);
  const Tensor loss = accumulate_gradients(run, packed->view(), {0, 12 / size, 12 / size}, config);
  Tensors gradients;
  for (const auto& gradient : run.optimizer->main_gradients())
    gradients.push_back(gradient.clone());
  return {loss, gradients};
}

TEST(TrainerTest, FourMicroBatchesEqualOne) {
  const TempFolder folder;
  const auto [loss, gradients] = gradients_in(folder, 12);
  const auto [loss_of_four, gradients_of_four] = gradients_in(folder, 3);
  expect_close(loss_of_four, loss, 1e-10);
  for (size_t i = 0; i < gradients.size(); ++i) {
    EXPECT_GT(gradients[i].abs().max().item<double>(), 0);
    expect_close(gradients_of_four[i], gradients[i], 1e-10);
  }
}

TEST(TrainerTest, TheLossIsTheMeanOverTheStepsTargets) {
  const TempFolder folder;
  TrainConfig config = tiny_config(folder.path());
  resolve(config, tiny_factory(), *load_tokenizer("bytes"));
  nlohmann::ordered_json origin;
  const auto tokenizer = load_tokenizer("bytes");
  auto run = new_run(config, tiny_factory(), *tokenizer, this_process(), torch::kCPU, &origin);
  std::vector<Row> rows;
  for (int64_t i = 0; i < 6; ++i) rows.push_back(make_sampler(config, {})->row(i));
  for (size_t t = 1; t < 13; ++t) rows[0].targets[t] = kIgnored;  // 1 target here, 13 elsewhere
  const ScoreResult scored = score_rows(*run.model, rows, torch::kCPU, 6);
  EXPECT_EQ(scored.weight, 1 + 5 * 13);
  const StepStats stats = train_step(run, pack_rows(rows)->view(), {0, 3, 3}, config, 0.005);
  EXPECT_NEAR(stats.loss, scored.nll_sum / scored.weight, 1e-6);
  EXPECT_EQ(stats.step, 1);
  EXPECT_EQ(stats.tokens, 78);
  EXPECT_EQ(stats.lr, 0.005);
}

TEST(TrainerTest, RowsWithoutTargetsAreNoCatastrophe) {
  const TempFolder folder;
  TrainConfig config = tiny_config(folder.path());
  const auto tokenizer = load_tokenizer("bytes");
  resolve(config, tiny_factory(), *tokenizer);
  nlohmann::ordered_json origin;
  auto run = new_run(config, tiny_factory(), *tokenizer, this_process(), torch::kCPU, &origin);
  std::vector<Row> rows;
  for (int64_t i = 0; i < 6; ++i) rows.push_back(make_sampler(config, {})->row(i));
  apply_packing(rows, {.multiple = 1, .unscored_prefix = 13});
  const StepStats stats = train_step(run, pack_rows(rows)->view(), {0, 3, 3}, config, 0.005);
  EXPECT_EQ(stats.loss, 0);
  EXPECT_EQ(stats.grad_norm, 0);
  EXPECT_EQ(stats.bad, BadStep::kNone);
}

TEST(TrainerTest, ThreeBadStepsInARowEndTheRun) {
  const TempFolder folder;
  // The first step makes weights of about 1e30, on which everything overflows.
  const TrainOutcome outcome = train_tiny(folder, "run",
                                          {"optimizer.lr=1e30", "lr_schedule={name: constant}",
                                           "checkpoint.every=2", "data.validation=[]"});
  EXPECT_EQ(outcome.exit_code, kExitStopped);
  EXPECT_EQ(outcome.step, 4);
  const auto metrics = metrics_of(folder / "run");
  ASSERT_EQ(metrics.size(), 4u);
  EXPECT_FALSE(metrics[0].contains("skipped"));
  for (size_t i = 1; i < 4; ++i) EXPECT_EQ(metrics[i].at("skipped"), "not finite");
  EXPECT_EQ(checkpoint_steps(folder / "run"), std::vector<int64_t>{2});  // none at step 4
  const Checkpoint checkpoint(outcome.checkpoint);
  EXPECT_EQ(checkpoint.state().at("skipped"), 1);
  for (const auto& name : checkpoint.weight_names())
    EXPECT_TRUE(checkpoint.weight(name).isfinite().all().item<bool>()) << name;
  EXPECT_NE(read_text(folder / "run/log.txt")
                .find("stopped after step 4 by bad_steps: 3 in a row changed no weight, 0 "
                      "rollbacks; the last "
                      "checkpoint is " +
                      outcome.checkpoint),
            std::string::npos);
  // Nothing changes by trying again.
  EXPECT_EQ(train_tiny(folder, "run",
                       {"optimizer.lr=1e30", "lr_schedule={name: constant}", "checkpoint.every=2",
                        "data.validation=[]"})
                .step,
            4);
}

TEST(TrainerTest, ASignalSavesAfterTheStep) {
  for (const auto& [number, code] : {std::pair(SIGTERM, 143), std::pair(SIGINT, 130)}) {
    const TempFolder folder;
    const TrainOutcome outcome = train_tiny(folder, "run", {}, {}, raising_factory(number));
    EXPECT_EQ(outcome.exit_code, code);
    EXPECT_EQ(checkpoint_steps(folder / "run"), std::vector<int64_t>{1});
  }
}

TEST(TrainerTest, BeginsWithGivenWeights) {
  const TempFolder folder;
  const TrainOutcome first =
      train_tiny(folder, "first", {"training.steps=60", "lr_schedule.steps=60"});
  const TrainOutcome second = train_tiny(
      folder, "second", {"init={from: " + (folder / "first") + "}", "training.seed=6"}, 1);
  const auto losses = metrics_of(folder / "second");
  EXPECT_LT(losses.front().at("loss").get<double>(),
            metrics_of(folder / "first").front().at("loss").get<double>() - 0.5);
  EXPECT_EQ(second.step, 1);
  EXPECT_EQ(read_json(folder / "second/run.json").at("starts")[0].at("weights").dump(),
            "{\"checkpoint\":\"" + first.checkpoint + "\",\"step\":60}");
}

TEST(TrainerTest, Bfloat16Trains) {
  const TempFolder folder;
  const TrainOutcome outcome = train_tiny(
      folder, "run", {"training.steps=40", "lr_schedule.steps=40", "training.dtype=bfloat16"});
  EXPECT_LT(*outcome.loss, 0.9 * std::log(258));
  const Checkpoint checkpoint(outcome.checkpoint);
  const Tensor weight = checkpoint.weight("head.weight");
  EXPECT_FALSE(weight.equal(
      weight.to(torch::kBFloat16).to(torch::kFloat32)));  // the masters, not what the module holds
}

TEST(TrainerTest, RowsAreWhatTheModelCanRead) {
  const TempFolder folder;
  const auto error = [&](const Packing& packing, const std::vector<std::string>& words) {
    ModelFactory factory = tiny_factory();
    factory.build = [packing](const Choice&) {
      return std::make_shared<RecurrentModel>(258, 7, packing);
    };
    return error_of([&] { train_tiny(folder, "run", words, {}, factory); }, kExitUsage);
  };
  const Packing blocks = {.multiple = 4, .unscored_prefix = 3};
  EXPECT_EQ(error(blocks, {}),
            "training.context_length = 13, expected a multiple of 4, as the rows of the model are");
  EXPECT_EQ(error({.max_length = 12}, {}),
            "training.context_length = 13, expected at most 12, the positions of the model");
  const std::string no_steps =
      "training={context_length: 12, tokens_per_step: 72, micro_batch_size: 2}";
  EXPECT_EQ(error(blocks, {no_steps, "data.mask_documents=true"}),
            "data.mask_documents = true, expected false for a model with pad_documents: false, "
            "whose blocks mix documents");
  // Before the first step, also where a later stage is to blame.
  EXPECT_EQ(error({.max_length = 12},
                  {no_steps, "stages=[{steps: 4}, {steps: 5, training: {context_length: 36}}]"}),
            "command line: stages[1]: training.context_length = 36, expected at most 12, the "
            "positions of the "
            "model");
  EXPECT_EQ(
      error(blocks, {no_steps, "stages=[{steps: 4}, {steps: 5, data: {mask_documents: true}}]"}),
      "command line: stages[1]: data.mask_documents = true, expected false for a model with "
      "pad_documents: false, whose blocks mix documents");
  EXPECT_EQ(checkpoint_steps(folder / "run"), std::vector<int64_t>{});
}

TEST(TrainerTest, ADryRunWritesNothing) {
  const TempFolder folder;
  TrainConfig config = tiny_config(folder.path());
  const auto before = list_directory(folder.path());
  const DryRun run = dry_run(config, tiny_factory(), this_process(), torch::kCPU);
  EXPECT_EQ(list_directory(folder.path()), before);
  EXPECT_NEAR(run.loss, std::log(258), 0.5);
  EXPECT_GT(run.flops_per_token.total(), 6.0 * 16 * 24);
  EXPECT_NEAR(run.tokens_per_second, 26 / run.micro_batch_seconds, 1e-6);
  EXPECT_NEAR(run.run_seconds, 9 * 3 * run.micro_batch_seconds, 1e-9);
  EXPECT_EQ(run.weights_bytes, 16.0 * static_cast<double>(run.parameters));
}

}  // namespace
}  // namespace tandem
