#include <gtest/gtest.h>

#include "tests/train/helpers.h"

// Runs of several stages, and what a checkpoint of one knows of them.

namespace tandem {
namespace {

const std::vector<std::string> kWords = {
    "training={context_length: 13, tokens_per_step: 78, micro_batch_size: 2, seed: 5, threads: 1, "
    "batch_ramp: {from: 26, steps: 3}}",
    "lr_schedule={name: cosine, warmup_steps: 2, min_lr: 0.001}", "validation.every=2",
    "checkpoint={every: 3, keep: 9}",
    "stages=[{steps: 4}, {steps: 3, training: {context_length: 39, recompute: layers}, model: "
    "{rope: {base: 77}}}, "
    "{steps: 3, optimizer: {lr: 0.003}, data: {mask_documents: true}}]"};

class StagesTest : public testing::Test {
 protected:
  StagesTest() { EXPECT_EQ(train_tiny(folder_, "whole", kWords).step, 10); }
  void expect_same(const std::string& run) {
    EXPECT_EQ(metrics_of(folder_ / run), metrics_of(folder_ / "whole"));
    EXPECT_TRUE(bytes_of_folder(checkpoint_folder(folder_ / run, 10)) ==
                bytes_of_folder(checkpoint_folder(folder_ / "whole", 10)));
  }
  std::string refusal(const std::string& stages) {
    auto words = kWords;
    words.back() = stages;
    return error_of([&] { train_tiny(folder_, "part", words); }, kExitUsage);
  }
  TempFolder folder_;
};

TEST_F(StagesTest, EachHasItsRowsAndItsCheckpoint) {
  EXPECT_EQ(checkpoint_steps(folder_ / "whole"), (std::vector<int64_t>{3, 4, 6, 7, 9, 10}));
  std::vector<int64_t> tokens;
  for (const auto& line : metrics_of(folder_ / "whole")) {
    if (line.contains("loss")) tokens.push_back(line.at("tokens"));
  }
  EXPECT_EQ(tokens, (std::vector<int64_t>{26, 52, 104, 182, 260, 338, 416, 494, 572, 650}));
  const auto base = [&](int64_t step) {
    const ConfigNode config =
        parse_yaml(Checkpoint(checkpoint_folder(folder_ / "whole", step)).config_yaml(), "config");
    EXPECT_EQ(config.find("stages"), nullptr);
    return config.find("model")->find("rope")->find("base")->scalar;
  };
  EXPECT_EQ(base(4), "10000");  // a checkpoint says how its weights were trained
  EXPECT_EQ(base(6), "77");
  EXPECT_EQ(base(10), "77");
  EXPECT_NE(read_text(folder_ / "whole/config.yaml").find("stages:"), std::string::npos);
}

TEST_F(StagesTest, StoppingAnywhereChangesNothing) {
  for (const int64_t stop_at : {2, 4, 5, 7, 8})
    EXPECT_EQ(train_tiny(folder_, "part", kWords, stop_at).step, stop_at);
  EXPECT_EQ(train_tiny(folder_, "part", kWords).step, 10);
  expect_same("part");
}

TEST_F(StagesTest, AValidationLeftOutAtABorderIsThatOfTheStageBefore) {
  train_tiny(folder_, "part", kWords, 4);
  const std::string path = folder_ / "part/metrics.jsonl", text = read_text(path);
  write_file(path, text.substr(0, text.find("{\"step\":4,\"validation_loss\"")));
  train_tiny(folder_, "part", kWords);
  expect_same("part");
}

TEST_F(StagesTest, StagesToComeMayChangeAndThoseThatBeganMayNot) {
  train_tiny(folder_, "part", kWords, 5);
  EXPECT_EQ(refusal("stages=[{steps: 4}, {steps: 3, training: {context_length: 13, recompute: "
                    "layers}, model: {rope: {base: 77}}}]"),
            (folder_ / "part") +
                ": cannot be resumed with another config: training.context_length was 39, is 13; "
                "lr_schedule.steps was 10, is 7; the schedule ends with training.steps, so other "
                "steps would have had other learning rates: to keep it write lr_schedule.steps=10; "
                "go back, or start another run with --out");
  EXPECT_EQ(refusal("stages=[{steps: 3}, {steps: 4, training: {context_length: 39, recompute: "
                    "layers}, model: {rope: {base: 77}}}, {steps: 3}]"),
            (folder_ / "part") +
                ": cannot be resumed: the stage began after step 4, now after step 3; go back, or "
                "start another run with --out");
  auto words = kWords;
  words.back() =
      "stages=[{steps: 4}, {steps: 3, training: {context_length: 39, recompute: layers}, model: "
      "{rope: {base: 77}}}, "
      "{steps: 3, optimizer: {lr: 0.004}}]";
  EXPECT_EQ(train_tiny(folder_, "part", words).step, 10);
}

}  // namespace
}  // namespace tandem
