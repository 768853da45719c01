#include <gmock/gmock.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <sstream>

#include "cli/commands.h"
#include "cli/inference_table.h"
#include "cli/peak_memory.h"
#include "core/json_lines.h"
#include "tests/cli/tiny_checkpoint.h"
#include "tests/data/temp_folder.h"

namespace tandem {
namespace {

using Json = nlohmann::ordered_json;

class BenchCommandTest : public testing::Test {
 protected:
  Ran bench(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "inference");
    arguments.insert(arguments.end(), {"--device", "cpu", "--repeats", "2", "--decode", "3"});
    return run_captured(run_bench, "tandem bench", arguments);
  }
  std::vector<Json> records(std::vector<std::string> arguments) {
    arguments.push_back("--json");
    const Ran ran = bench(std::move(arguments));
    EXPECT_EQ(ran.code, 0);
    std::istringstream lines(ran.out);
    std::vector<Json> records;
    for (std::string line; std::getline(lines, line);) records.push_back(parse_json(line));
    return records;
  }
  /// A config of random weights.
  std::string config(const std::string& name, const std::string& model_yaml) {
    write_file(folder_ / name, "model: " + model_yaml + "\n");
    return folder_ / name;
  }
  TempFolder folder_;
};

const char* const kTinyTransformer =
    "{family: transformer, vocab_size: 53, d_model: 22, ffn_dim: 29, n_layers: 3, n_heads: 4, "
    "n_kv_heads: 2, head_dim: 6}";

TEST_F(BenchCommandTest, MeasuresEveryModelBatchAndLength) {
  const std::string tiny = config("tiny.yaml", kTinyByteYoco);
  const std::string run = write_tiny_run(folder_ / "run", kTinyByteYoco);
  const auto all =
      records({run, tiny, "--prompt-lengths", "5,11", "--batch", "1,3", "--prefill-chunk", "4"});
  ASSERT_EQ(all.size(), 8u);
  EXPECT_EQ(all[0]["checkpoint"], checkpoint_folder(run, 7));
  EXPECT_EQ(all[7]["checkpoint"], "");
  EXPECT_EQ(all[7]["batch"], 3);
  EXPECT_EQ(all[7]["length"], 11);
  for (const auto& record : all) {
    EXPECT_EQ(record["family"], "yoco");
    EXPECT_EQ(record["cache_dtype"], "float32");
    EXPECT_EQ(record["prompt_length"], record["length"]);
    EXPECT_EQ(record["decode_length"], 3);
    EXPECT_EQ(record["repeats"], 2);
    EXPECT_EQ(record["warm_up"], true);
    for (const char* spread : {"prefill_ms", "decode_ms_per_token", "throughput_tokens_per_s"}) {
      EXPECT_GT(record[spread]["min"], 0);
      EXPECT_LE(record[spread]["min"], record[spread]["median"]);
      EXPECT_LE(record[spread]["median"], record[spread]["max"]);
    }
    EXPECT_GT(record["prefill_flops"]["total"], record["decode_flops_per_token"]["total"]);
    // what the state holds after the prompt is what the model says it would
    EXPECT_EQ(record["state_bytes"], record["batch"].get<int64_t>() *
                                         record["state_bytes_per_row"]["total"].get<int64_t>());
  }
}

TEST_F(BenchCommandTest, ANarrowCacheIsMeasuredAsSuch) {
  const std::string yoco = config("yoco.yaml", kTinyByteYoco);
  const std::string transformer = config("transformer.yaml", kTinyTransformer);
  const auto wide = records({yoco, transformer, "--lengths", "11", "--batch", "2"});
  const auto narrow =
      records({yoco, transformer, "--lengths", "11", "--batch", "2", "--cache-dtype", "bfloat16"});
  for (const auto& record : narrow) {
    EXPECT_EQ(record["dtype"], "float32");
    EXPECT_EQ(record["cache_dtype"], "bfloat16");
    EXPECT_EQ(record["state_bytes"], 2 * record["state_bytes_per_row"]["total"].get<int64_t>());
  }
  EXPECT_EQ(2 * narrow[0]["state_bytes_per_row"]["shared_kv"].get<int64_t>(),
            wide[0]["state_bytes_per_row"]["shared_kv"]);
  EXPECT_EQ(narrow[0]["state_bytes_per_row"]["self_decoder"],  // retention's: stays float32
            wide[0]["state_bytes_per_row"]["self_decoder"]);
  EXPECT_EQ(2 * narrow[1]["state_bytes"].get<int64_t>(), wide[1]["state_bytes"]);
}

TEST_F(BenchCommandTest, ThePapersProtocolCountsGeneratedTokensIn) {
  const std::string tiny = config("tiny.yaml", kTinyByteYoco);
  const auto all = records({tiny, "--protocol", "yoco", "--lengths", "11", "--batch", "1"});
  EXPECT_EQ(all[0]["protocol"], "yoco");
  EXPECT_EQ(all[0]["length"], 11);
  EXPECT_EQ(all[0]["prompt_length"], 8);
  EXPECT_EQ(all[0]["decode_length"], 3);
  EXPECT_EQ(error_of(
                [&] {
                  bench({tiny, "--protocol", "yoco", "--lengths", "3"});
                },
                kExitUsage),
            "--lengths 3 leaves no prompt, expected more than the 3 tokens that are generated");
}

TEST_F(BenchCommandTest, WithoutTimeForRepeatsTheFirstRunCounts) {
  const std::string tiny = config("tiny.yaml", kTinyByteYoco);
  const Json record = records({tiny, "--lengths", "7", "--batch", "3", "--max-seconds", "1e-9"})[0];
  EXPECT_EQ(record["repeats"], 1);
  EXPECT_EQ(record["warm_up"], false);
  const double seconds = (record["prefill_ms"]["median"].get<double>() +
                          3 * record["decode_ms_per_token"]["median"].get<double>()) /
                         1e3;
  EXPECT_NEAR(record["throughput_tokens_per_s"]["median"], 3 * 3 / seconds, 1e-6 / seconds);
}

TEST_F(BenchCommandTest, TheTableHasOneLineACase) {
  const std::string run = write_tiny_run(folder_ / "run", kTinyByteYoco);
  const Ran ran = bench({run, "--lengths", "5,7", "--batch", "2"});
  EXPECT_EQ(std::count(ran.out.begin(), ran.out.end(), '\n'), 2 + 2);  // heading and rule
  EXPECT_THAT(ran.out, testing::StartsWith("model"));
}

TEST_F(BenchCommandTest, SeveralModelsAreComparedWithTheReference) {
  const std::string yoco = config("yoco.yaml", kTinyByteYoco);
  const std::string transformer = config("transformer.yaml", kTinyTransformer);
  const Ran last = bench({yoco, transformer, "--lengths", "5,7", "--batch", "1"});
  EXPECT_THAT(last.out, testing::HasSubstr("\n" + transformer + " against each model"));
  const Ran named =
      bench({yoco, transformer, "--lengths", "5,7", "--batch", "1", "--reference", yoco});
  EXPECT_THAT(named.out, testing::HasSubstr("\n" + yoco + " against each model"));
  EXPECT_EQ(error_of(
                [&] {
                  bench({yoco, "--reference", "other"});
                },
                kExitUsage),
            "--reference other is none of the models");
}

TEST_F(BenchCommandTest, WrongLengthsAreNamed) {
  const Ran ran = bench({"x", "--lengths", "5,0"});
  EXPECT_EQ(ran.code, kExitUsage);
  EXPECT_THAT(ran.err, testing::HasSubstr("--lengths"));
}

Json record_of(const std::string& model, const std::string& family, int64_t length,
               int64_t state_bytes, double prefill_ms, double decode_ms, double throughput) {
  const auto spread = [](double median) {
    return Json{{"median", median}, {"min", median / 2}, {"max", median * 2}};
  };
  return {{"model", model},
          {"family", family},
          {"batch", 1},
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
            "\nt against each model: its state and times over the model's, the model's throughput "
            "over its\n\n"
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

TEST(PeakMemoryTest, SeesWhatWasGivenBackAndThenStartsAnew) {
  constexpr int64_t kBytes = 64 << 20;
  const PeakMemory peak(torch::kCPU);
  if (!peak.growth_bytes()) GTEST_SKIP() << "the system does not let the count begin anew";
  torch::ones({kBytes}, torch::kUInt8);
  EXPECT_GE(*peak.growth_bytes(), kBytes * 15 / 16);
  const PeakMemory after(torch::kCPU);
  EXPECT_LT(*after.growth_bytes(), kBytes / 4);
  EXPECT_GT(after.before_bytes(), 0);
}

}  // namespace
}  // namespace tandem
