#include <gmock/gmock.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "cli/commands.h"
#include "core/json_lines.h"
#include "tests/cli/tiny_checkpoint.h"
#include "tests/data/temp_folder.h"

namespace tandem {
namespace {

class BenchCommandTest : public testing::Test {
 protected:
  Ran bench(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "inference");
    arguments.insert(arguments.end(), {"--device", "cpu", "--repeats", "2", "--decode", "3"});
    return run_captured(run_bench, "tandem bench", arguments);
  }
  TempFolder folder_;
};

TEST_F(BenchCommandTest, MeasuresEveryModelBatchAndLength) {
  write_file(folder_ / "tiny.yaml", "model: " + std::string(kTinyByteYoco) + "\n");
  const std::string run = write_tiny_run(folder_ / "run", kTinyByteYoco);
  const Ran ran = bench({run, folder_ / "tiny.yaml", "--prompt-lengths", "5,11", "--batch", "1,3",
                         "--prefill-chunk", "4", "--json"});
  EXPECT_EQ(ran.code, 0);
  std::istringstream lines(ran.out);
  std::vector<nlohmann::ordered_json> records;
  for (std::string line; std::getline(lines, line);) records.push_back(parse_json(line));
  ASSERT_EQ(records.size(), 8u);
  EXPECT_EQ(records[0]["checkpoint"], checkpoint_folder(run, 7));
  EXPECT_EQ(records[7]["checkpoint"], "");
  EXPECT_EQ(records[7]["batch"], 3);
  EXPECT_EQ(records[7]["prompt_length"], 11);
  for (const auto& record : records) {
    for (const char* times : {"prefill_ms", "decode_ms_per_token"}) {
      EXPECT_GT(record[times]["min"], 0);
      EXPECT_LE(record[times]["min"], record[times]["median"]);
      EXPECT_LE(record[times]["median"], record[times]["max"]);
    }
    EXPECT_GT(record["prefill_flops"]["total"], record["decode_flops_per_token"]["total"]);
    // what the state holds after the prompt is what the model says it would
    EXPECT_EQ(record["state_bytes"], record["batch"].get<int64_t>() *
                                         record["state_bytes_per_row"]["total"].get<int64_t>());
  }
}

TEST_F(BenchCommandTest, TheTableHasOneLineACase) {
  const std::string run = write_tiny_run(folder_ / "run", kTinyByteYoco);
  const Ran ran = bench({run, "--prompt-lengths", "5,7", "--batch", "2"});
  EXPECT_EQ(std::count(ran.out.begin(), ran.out.end(), '\n'), 2 + 2);  // heading and rule
  EXPECT_THAT(ran.out, testing::StartsWith("model"));
}

TEST_F(BenchCommandTest, WrongLengthsAreNamed) {
  const Ran ran = bench({"x", "--prompt-lengths", "5,0"});
  EXPECT_EQ(ran.code, kExitUsage);
  EXPECT_THAT(ran.err, testing::HasSubstr("--prompt-lengths"));
}

}  // namespace
}  // namespace tandem
