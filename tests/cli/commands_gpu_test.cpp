#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "core/json_lines.h"
#include "tests/cli/tiny_checkpoint.h"
#include "tests/data/temp_folder.h"
#include "tests/gpu.h"

// Commands with --device cuda.

namespace tandem {
namespace {

using Json = nlohmann::ordered_json;

class CommandsGpuTest : public OnGpu<> {
 protected:
  static Json json_of(int (*command)(int, const char* const*), const char* name,
                      std::vector<std::string> arguments, const std::string& device) {
    arguments.insert(arguments.end(), {"--device", device});
    const Ran ran = run_captured(command, name, arguments);
    EXPECT_EQ(ran.code, 0) << ran.err;
    return parse_json(ran.out);
  }
  const TempFolder folder_;
  const std::string run_ = write_tiny_run(folder_ / "run", kTinyByteYoco);
};

TEST_F(CommandsGpuTest, ScoreAndGenerate) {
  write_file(folder_ / "ids.json",
             "{\"tokens\": [[5, 0, 52, 17, 17, 3, 40, 8, 9], [31], [2, 44]]}");
  const auto scores = [&](const std::string& device) {
    return json_of(run_score, "tandem score",
                   {run_, "--tokens", folder_ / "ids.json", "--dtype", "float64"},
                   device)["log_probs"];
  };
  const Json expected = scores("cpu"), actual = scores("cuda");
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t b = 0; b < expected.size(); ++b) {
    for (size_t t = 1; t < expected[b].size(); ++t)
      EXPECT_NEAR(actual[b][t].get<double>(), expected[b][t].get<double>(), 1e-5);
  }
  for (const char* dtype : {"float64", "bfloat16"}) {
    const auto ids = [&](const std::string& device) {
      return json_of(run_generate, "tandem generate",
                     {run_, "--prompt", "And it came to pass", "--seed", "3", "--top-k", "40",
                      "--max-new-tokens", "20", "--dtype", dtype, "--json"},
                     device)["ids"];
    };
    if (std::string(dtype) == "float64") {
      EXPECT_EQ(ids("cuda"), ids("cpu"));
    } else {
      EXPECT_EQ(ids("cuda:0"), ids("cuda"));
    }
  }
}

TEST_F(CommandsGpuTest, BenchMeasuresMemoryOfTheDevice) {
  for (const char* dtype : {"float32", "bfloat16"}) {
    const Json record = json_of(run_bench, "tandem bench",
                                {"inference", run_, "--lengths", "24", "--decode", "3", "--batch",
                                 "2", "--repeats", "1", "--dtype", dtype, "--json"},
                                "cuda");
    EXPECT_EQ(record["device"], "cuda:0");
    EXPECT_EQ(record["batch"], 2);
    EXPECT_GT(record["peak_bytes"].get<int64_t>(), 0);
  }
}

}  // namespace
}  // namespace tandem
