#include "train/metrics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/train/helpers.h"

namespace tandem {
namespace {

StepStats stats_of(int64_t step, double loss) {
  return {.step = step,
          .loss = loss,
          .grad_norm = 1.347,
          .lr = 1.5e-4,
          .tokens = 100,
          .seconds = 0.5,
          .data_seconds = 0.125};
}

TEST(MetricsTest, TheLogLineIsTheOneThatToolsParse) {
  LogLine line{.stats = stats_of(10, 8.040309),
               .memory = {1.02 * 1024 * 1024 * 1024, 94.4 * 1024 * 1024 * 1024},
               .mfu_percent = 0.2};
  line.tps = 27483.4;
  line.tflops = 1.97;
  line.seconds_left = 200;
  EXPECT_EQ(line.str(),
            "step: 10  loss: 8.04031  grad_norm: 1.3470  memory: 1.02GiB(1.08%)  tps: 27,483  "
            "tflops: 1.97  mfu: 0.20%"
            "  lr: 1.500e-04  left: 3 min 20 s");
  line.mfu_percent.reset();
  line.stats.bad = BadStep::kNotFinite;
  line.stats.loss = std::numeric_limits<double>::quiet_NaN();
  EXPECT_EQ(line.str(),
            "step: 10  loss: nan  grad_norm: 1.3470  memory: 1.02GiB(1.08%)  tps: 27,483  tflops: "
            "1.97  mfu: n/a"
            "  lr: 1.500e-04  left: 3 min 20 s  no update: not finite");
}

TEST(MetricsTest, LossByPositionIsTheMeanOverEachBucket) {
  ScoreResult result;
  for (int t = 0; t < 37; ++t) {  // 37 columns in 16 buckets of 2 or 3
    result.nll_by_position.push_back(2.0 * t);
    result.count_by_position.push_back(t < 2 ? 0 : 2);
  }
  const auto means = nll_by_position(result);
  ASSERT_EQ(means.size(), 16u);
  EXPECT_TRUE(std::isnan(means[0]));  // columns 0 and 1, not scored
  EXPECT_DOUBLE_EQ(means[1],
                   (2.0 + 3.0) / 2);  // columns 2 and 3: floor(37 / 16) = 2, floor(74 / 16) = 4
  EXPECT_DOUBLE_EQ(means[15], (34.0 + 35.0 + 36.0) / 3);

  result.nll_by_position.resize(5);
  result.count_by_position.resize(5);
  EXPECT_EQ(nll_by_position(result).size(), 5u);
}

TEST(MetricsTest, ValidationOfAModelThatReadsBlocksShowsTheirSlots) {
  const TempFolder folder;
  Metrics metrics(folder.path(), {}, {.steps = 9, .block_length = 2, .peak_flops = {}});
  ScoreResult result;
  result.nll_sum = 8;
  result.weight = 4;
  result.nll_by_position = {0, 2, 1, 5};
  result.count_by_position = {0, 1, 1, 2};
  testing::internal::CaptureStderr();
  metrics.validation(3, result, 0.5);
  const std::string log = testing::internal::GetCapturedStderr();
  EXPECT_NE(log.find("validate step: 3  loss: 2.00000  ppl: 7.389"), std::string::npos) << log;
  EXPECT_NE(log.find("tps: 8  loss_by_block_position: 2.3333 1.0000\n"), std::string::npos) << log;
  const auto line = parse_json(read_text(folder / "metrics.jsonl"));
  EXPECT_EQ(line.at("nll_by_block_position").dump(), "[2.3333333333333335,1.0]");
  EXPECT_EQ(line.at("nll_by_position").dump(), "[null,2.0,1.0,2.5]");
  const std::string events = file_bytes(folder / ("tb/" + list_directory(folder / "tb").front()));
  EXPECT_NE(events.find("validation_metrics/loss_by_block_position/1"), std::string::npos);

  result.count_by_position = {1, 0, 1, 0};  // nothing is scored in slot 0
  metrics.validation(4, result, 0.5);
  const std::string lines = read_text(folder / "metrics.jsonl");
  EXPECT_NE(lines.find(R"("nll_by_block_position":[null,0.5])"), std::string::npos) << lines;
}

TEST(MetricsTest, EveryStepIsALineOfMetrics) {
  const TempFolder folder;
  MetricsConfig config;
  config.log_every = 3;
  Metrics metrics(
      folder.path(), config,
      {.first_step = 4, .steps = 9, .tokens_before = 400, .flops_per_token = 10, .peak_flops = {}});
  metrics.step(stats_of(5, 3.5));
  StepStats bad = stats_of(6, std::numeric_limits<double>::quiet_NaN());
  bad.bad = BadStep::kNotFinite;
  metrics.step(bad);
  ScoreResult result;
  result.nll_sum = 6;
  result.weight = 4;
  result.nll_by_position = {4, 2};
  result.count_by_position = {2, 2};
  metrics.validation(6, result, 0.5);
  EXPECT_EQ(
      read_text(folder / "metrics.jsonl"),
      R"({"step":5,"loss":3.5,"grad_norm":1.347,"lr":0.00015,"tokens":500,"seconds":0.5,"data_seconds":0.125})"
      "\n"
      R"({"step":6,"loss":null,"grad_norm":1.347,"lr":0.00015,"tokens":600,"seconds":0.5,"data_seconds":0.125,"skipped":"not finite"})"
      "\n"
      R"({"step":6,"validation_loss":1.5,"validation_tokens":4,"seconds":0.5,"nll_by_position":[2.0,1.0]})"
      "\n");
  EXPECT_EQ(list_directory(folder / "tb").size(), 1u);
}

TEST(MetricsTest, TensorboardCanBeSwitchedOff) {
  const TempFolder folder;
  MetricsConfig config;
  config.tensorboard = false;
  Metrics metrics(folder.path(), config, {.steps = 2, .peak_flops = {}});
  metrics.step(stats_of(1, 3));
  EXPECT_FALSE(exists(folder / "tb"));
}

TEST(MetricsTest, PeaksAreThoseOfTheDataSheets) {
  EXPECT_EQ(peak_flops("NVIDIA H200", torch::kBFloat16), 989e12);
  EXPECT_EQ(peak_flops("NVIDIA H100 PCIe", torch::kBFloat16), 756e12);
  EXPECT_EQ(peak_flops("NVIDIA A100-SXM4-80GB", torch::kBFloat16), 312e12);
  EXPECT_EQ(peak_flops("NVIDIA H20", torch::kBFloat16), 148e12);
  EXPECT_EQ(peak_flops("NVIDIA H200", torch::kFloat32), std::nullopt);
  EXPECT_EQ(peak_flops("some CPU", torch::kBFloat16), std::nullopt);
}

TEST(MetricsTest, MemoryOfTheCpuIsResidentMemory) {
  const MemoryUse before = memory_use(torch::kCPU);
  const auto block = torch::ones({32 << 20}, torch::kUInt8);  // touched, so resident
  const MemoryUse after = memory_use(torch::kCPU);
  EXPECT_GT(before.bytes, 0);
  EXPECT_GT(after.bytes, before.bytes + (16 << 20));
  EXPECT_GT(after.limit, after.bytes);
}

}  // namespace
}  // namespace tandem
