// The official YOCO code's logits through the commands alone: `tandem convert import`, then `tandem score --logits`.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "core/file.h"
#include "tests/golden.h"
#include "tests/nn/helpers.h"
#include "tests/cli/tiny_checkpoint.h"
#include "tests/data/temp_folder.h"

namespace tandem {
namespace {

class ScoreGoldenTest : public testing::TestWithParam<std::string> {};

nlohmann::json rows_of(const Tensor& tokens) {
  auto rows = nlohmann::json::array();
  for (int64_t b = 0; b < tokens.size(0); ++b) {
    const Tensor row = tokens[b].contiguous();
    rows.push_back(std::vector<int64_t>(row.data_ptr<int64_t>(), row.data_ptr<int64_t>() + row.numel()));
  }
  return rows;
}

TEST_P(ScoreGoldenTest, LogitsOfTheFullForwardPass) {
  const TempFolder folder;
  const auto golden = read_tensors(golden_yoco(GetParam()) + "/io.safetensors");
  const std::string checkpoint = folder / "checkpoint", ids = folder / "ids.json", out = folder / "logits.safetensors";
  ASSERT_EQ(run_captured(run_convert, "tandem convert", {"import", "--format", "yoco-official", golden_yoco(GetParam()), checkpoint}).code, 0);
  write_atomically(ids, nlohmann::json{{"tokens", rows_of(golden.at("tokens"))}}.dump());
  ASSERT_EQ(run_captured(run_score, "tandem score", {checkpoint, "--tokens", ids, "--logits", out, "--device", "cpu"}).code, 0);

  const Tensor logits = read_tensors(out).at("logits");
  const Tensor& expected = golden.at("logits");
  ASSERT_EQ(logits.sizes(), expected.sizes());
  const double difference = (logits - expected).abs().max().item<double>();
  RecordProperty("largest_difference", std::to_string(difference));
  EXPECT_LE(difference, 3e-5);  // separates right from wrong, says the goldens' README; both sides are float32
}

INSTANTIATE_TEST_SUITE_P(Cases, ScoreGoldenTest,
                         testing::Values("gated_retention", "gated_retention_gqa", "sliding_window", "transformer_llama"),
                         [](const auto& name) { return name.param; });

}  // namespace
}  // namespace tandem
