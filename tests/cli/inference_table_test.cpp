#include "cli/inference_table.h"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "cli/expected_ratios.h"

namespace tandem {
namespace {

using Json = nlohmann::ordered_json;

Json record_of(const std::string& model, const std::string& family, int64_t length,
               int64_t state_bytes, double prefill_ms, double decode_ms, double throughput) {
  const auto spread = [](double median) {
    return Json{{"median", median}, {"min", median / 2}, {"max", median * 2}};
  };
  return {{"model", model},
          {"family", family},
          {"batch", 1},
          {"asked_batch", 1},
          {"length", length},
          {"repeats", 3},
          {"prefill_ms", spread(prefill_ms)},
          {"decode_ms_per_token", spread(decode_ms)},
          {"throughput_tokens_per_s", spread(throughput)},
          {"state_bytes", state_bytes},
          {"prefill_beyond_state_bytes", Json()}};
}

TEST(InferenceTableTest, ComparesWithTheReferenceAndThePaper) {
  const std::vector<Json> records = {record_of("y", "yoco", 32768, 100, 20, 4, 50),
                                     record_of("y", "yoco", 4096, 100, 10, 3, 80),
                                     record_of("y", "yoco", 1 << 20, 100, 10, 3, 80),
                                     record_of("y", "yoco", 64, 100, 10, 3, 80),
                                     record_of("t", "transformer", 32768, 590, 60, 5, 10),
                                     record_of("t", "transformer", 4096, 300, 15, 3, 60),
                                     record_of("t", "transformer", 1 << 20, 300, 15, 3, 60)};
  EXPECT_EQ(comparison_table(records, "t"),
            "\nt against each model: a row's state and times over the model's, the model's "
            "throughput over its\n\n"
            "model  batch     tokens  state  prefill  decode  throughput  paper: memory  prefill  "
            "throughput\n"
            "─────  ─────  ─────────  ─────  ───────  ──────  ──────────  ─────────────  ───────  "
            "──────────\n"
            "y          1     32,768  5.90x    3.00x   1.25x       5.00x          1.95x    2.87x  "
            "     2.72x\n"
            "y          1      4,096  3.00x    1.50x   1.00x       1.33x\n"
            "y          1  1,048,576  3.00x    1.50x   1.00x       1.33x          9.38x   71.82x  "
            " not shown\n"
            "paper: 3B, H100, total memory (weights and the rest too); 1,024 tokens generated, "
            "batch sizes not stated\n");
}

TEST(InferenceTableTest, ThePaperStandsOnlyBesideWhatItCompares) {
  const std::vector<Json> records = {record_of("y", "yoco", 32768, 100, 20, 4, 50),
                                     record_of("t", "transformer", 32768, 590, 60, 5, 10)};
  EXPECT_THAT(comparison_table(records, "y"), testing::Not(testing::HasSubstr("paper")));
  EXPECT_EQ(comparison_table({records[0]}, "y"), "");
}

TEST(InferenceTableTest, AMemoryThatIsNotKnownIsAQuestionMark) {
  const std::string table = inference_table({record_of("y", "yoco", 32768, 3 << 20, 1234, 4, 50)});
  EXPECT_THAT(table, testing::HasSubstr(" 1,234 (617 – 2,468) "));
  EXPECT_THAT(table, testing::EndsWith(" 50.0     3  3.00 MiB                  ?\n"));
}

/// Of a model that was decoded only; `per_token` as in expected_ratios.
Json decoded(const std::string& model, int64_t parameters, int64_t asked_batch, int64_t batch,
             int64_t state_bytes, double decode_ms, double flops, double state, double attention) {
  Json record = record_of(model, "", 2048, batch * state_bytes, 7, decode_ms, 1);
  record.erase("throughput_tokens_per_s");
  record.update({{"parameters", parameters},
                 {"batch", batch},
                 {"asked_batch", asked_batch},
                 {"decode_tokens_per_s", 1e3 * static_cast<double>(batch) / decode_ms},
                 {"state_bytes_per_row_at_end", {{"total", state_bytes + 100}}},
                 {"linear_flops_per_token", flops},
                 {"state_bytes_per_context_token", state},
                 {"attention_flops_per_context_token", attention}});
  return record;
}

constexpr int64_t kBlock85 = 173'164'032, kVanilla160 = 162'322'944;

TEST(InferenceTableTest, LargestBatchesAreComparedByTheRow) {
  const std::vector<Json> records = {decoded("b", kBlock85, 1, 1, 1024, 20, 1, 1, 1),
                                     decoded("b", kBlock85, 0, 40, 1024, 100, 1, 1, 1),
                                     decoded("v", kVanilla160, 1, 1, 8192, 30, 1, 1, 1),
                                     decoded("v", kVanilla160, 0, 5, 8192, 50, 1, 1, 1)};
  EXPECT_EQ(comparison_table(records, "v"),
            "\nv against each model: a row's state and times over the model's\n\n"
            "model   batch  tokens  state  prefill  decode\n"
            "─────  ──────  ──────  ─────  ───────  ──────\n"
            "b           1   2,048  8.00x    1.00x   1.50x\n"
            "b      40 / 5   2,048  8.00x    1.00x   4.00x\n");
  EXPECT_EQ(
      decode_table({records[1]}),
      "model  batch  tokens  decode ms/token (min – max)  tokens/s  runs      state  of a row "
      " in all at the end\n"
      "─────  ─────  ──────  ───────────────────────────  ────────  ────  ─────────  ──────── "
      " ─────────────────\n"
      "b         40   2,048             100 (50.0 – 200)       400     3  40.00 KiB  1.00 KiB "
      "         43.91 KiB\n");
}

TEST(InferenceTableTest, CostsStandBesideWhatIsExpectedOfThePapersPairs) {
  std::vector<Json> records = {decoded("b", kBlock85, 1, 1, 1024, 20, 100, 10, 3),
                               decoded("y", 5, 1, 1, 64, 25, 125, 0, 3),
                               decoded("v", kVanilla160, 1, 1, 8192, 30, 125, 80, 96)};
  records[0]["expected"] = expected_ratios("block_transformer", kBlock85);
  const std::string table = cost_table(records, "v");
  EXPECT_THAT(table, testing::ContainsRegex(
                         "\nb +1.25x +1.21x +8.00x +8.00x +32.00x +32.00x +1.50x +1.34x\n"));
  EXPECT_THAT(table, testing::ContainsRegex("\ny +1.00x +∞ +32.00x +1.20x\n"));
  records[2]["parameters"] = kVanilla160 + 1;  // another model than the paper's
  EXPECT_THAT(cost_table(records, "v"),
              testing::ContainsRegex("\nb +1.25x +8.00x +32.00x +1.50x\n"));
  EXPECT_EQ(cost_table({records[2]}, "v"), "");
}

TEST(InferenceTableTest, DecodingAtBatchOneIsOfTheShortestLengthWithOneRowOnBothSides) {
  const auto at = [](Json record, int64_t length) {
    record["length"] = length;
    return record;
  };
  const Json b_largest = decoded("b", 1, 0, 1, 1024, 10, 100, 10, 3);  // comes to one row
  const Json v_largest = decoded("v", 2, 0, 5, 8192, 90, 100, 10, 3);
  const Json b_one = decoded("b", 1, 1, 1, 1024, 20, 100, 10, 3);
  const Json v_one = decoded("v", 2, 1, 1, 8192, 30, 100, 10, 3);
  const Json v_far = decoded("v", 2, 1, 1, 8192, 80, 100, 10, 3);
  EXPECT_THAT(
      cost_table({b_largest, at(b_one, 4096), b_one, v_largest, at(v_far, 4096), v_one}, "v"),
      testing::ContainsRegex("\nb +1.00x +1.00x +1.00x +1.50x\n"));
  EXPECT_THAT(cost_table({b_largest, v_largest}, "v"),
              testing::ContainsRegex("\nb +1.00x +1.00x +1.00x\n"));
}

TEST(ExpectedRatiosTest, AreThoseOfThePublishedShapes) {
  // MFLOP of a generated token and MB read for it at 2 bytes a weight, of either model
  const Json small = expected_ratios("block_transformer", kBlock85);
  EXPECT_NEAR(small["linear_flops_per_token"].get<double>(), 247.0 / 205, 0.01);
  EXPECT_NEAR(small["decode_ms_per_token"].get<double>(), 247.0 / 184, 0.01);
  const Json large = expected_ratios("block_transformer", 420'313'088);
  EXPECT_NEAR(large["linear_flops_per_token"].get<double>(), 707.0 / 557, 0.01);
  EXPECT_NEAR(large["decode_ms_per_token"].get<double>(), 707.0 / 482, 0.01);
  EXPECT_EQ(expected_ratios("block_transformer", kBlock85)["against_parameters"], kVanilla160);
  EXPECT_TRUE(expected_ratios("block_transformer", kBlock85 + 1).empty());
  EXPECT_TRUE(expected_ratios("gpt_neox", kBlock85).empty());
}

}  // namespace
}  // namespace tandem
