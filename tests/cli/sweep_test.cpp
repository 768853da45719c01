#include <gmock/gmock.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "cli/build_model.h"
#include "cli/commands.h"
#include "core/file.h"
#include "core/json_lines.h"
#include "tests/cli/tiny_checkpoint.h"
#include "tests/paths.h"
#include "tests/process.h"
#include "tests/train/helpers.h"
#include "train/sweep_plan.h"

namespace tandem {
namespace {

using testing::HasSubstr;

class SweepCommandTest : public testing::Test {
 protected:
  void SetUp() override {
    write_file(folder_ / "tiny.yaml", tiny_yaml(folder_.path()));
    write_file(
        sweep_,
        "base: " + folder_ / "tiny.yaml" + "\nout: " + folder_ / "runs" +
            "\nset: {training.steps: 3, lr_schedule: {steps: 9}, metrics.tensorboard: false}\n"
            "grid: {model.d_model: [8, 16]}\nrules: {heads: {head_dim: 8}}\n");
  }
  std::vector<nlohmann::ordered_json> lines(const std::string& text) const {
    std::vector<nlohmann::ordered_json> all;
    for (size_t begin = 0, end; (end = text.find('\n', begin)) != text.npos; begin = end + 1)
      all.push_back(parse_json(std::string_view(text).substr(begin, end - begin)));
    return all;
  }
  TempFolder folder_;
  const std::string sweep_ = folder_ / "sizes.yaml";
};

TEST_F(SweepCommandTest, ADryRunShowsTheCostAndWritesNothing) {
  const Ran ran = run_captured(run_sweep, "tandem sweep", {sweep_, "--dry-run"});
  EXPECT_EQ(ran.code, 0);
  EXPECT_THAT(ran.out, HasSubstr("non-embedding"));
  EXPECT_THAT(ran.out, HasSubstr("d_model16"));
  EXPECT_THAT(ran.out, HasSubstr("2 runs into " + folder_ / "runs" + ": 468 tokens, "));
  EXPECT_FALSE(exists(folder_ / "runs"));
  const auto records = lines(
      run_captured(run_sweep, "tandem sweep",
                   {sweep_, "--dry-run", "--json", "set.training.steps=5", "--out", folder_ / "b"})
          .out);
  ASSERT_EQ(records.size(), 2u);
  EXPECT_EQ(records[1]["steps"], 5);
  EXPECT_EQ(records[1]["settings"]["model.n_heads"], 2);
  EXPECT_EQ(records[1]["folder"], folder_ / "b/d_model16");
}

TEST_F(SweepCommandTest, TrainsFitsAndDoesNothingTheSecondTime) {
  if (std::string(kTandemProgram).empty()) GTEST_SKIP() << "the program is not built";
  const auto tandem = [&](std::vector<std::string> words) {
    words.insert(words.begin(), kTandemProgram);
    return Process(words, folder_ / "err.txt").wait();
  };
  EXPECT_EQ(tandem({"sweep", sweep_, "--device", "cpu"}), 0) << read_text(folder_ / "err.txt");
  const std::string records = read_text(folder_ / "runs/sweep.jsonl");
  const auto all = lines(records);
  ASSERT_EQ(all.size(), 2u);
  for (const auto& record : all) {
    EXPECT_TRUE(exists(record["folder"].get<std::string>() + "/checkpoints/step-00000003"));
    EXPECT_GT(record["validation_loss"].get<double>(), 1);
    EXPECT_GT(record["seconds"].get<double>(), 0);
  }
  EXPECT_EQ(tandem({"sweep", sweep_, "--device", "cpu"}), 0);
  EXPECT_EQ(read_text(folder_ / "runs/sweep.jsonl"), records);

  const std::string fits = folder_ / "fits.jsonl";
  EXPECT_EQ(
      tandem({"eval", "scaling", folder_ / "runs/sweep.jsonl", "--device", "cpu", "--out", fits}),
      0)
      << read_text(folder_ / "err.txt");
  const auto fitted = lines(read_text(fits));
  ASSERT_EQ(fitted.size(), 3u);  // two laws and the front
  EXPECT_EQ(fitted[0]["separated"], false);
  EXPECT_EQ(fitted[0]["doubts"][0], "2 runs for 5 numbers, expected at least 8");
  EXPECT_EQ(fitted[2]["fit"], "pareto");

  write_file(folder_ / "wrong.yaml", "base: " + folder_ / "tiny.yaml" +
                                         "\nout: " + folder_ / "wrong" +
                                         "\ngrid: {data.train: [[{path: nowhere}]]}\n");
  EXPECT_EQ(tandem({"sweep", folder_ / "wrong.yaml", "--device", "cpu"}), kExitStopped);
  EXPECT_THAT(read_text(folder_ / "err.txt"),
              HasSubstr("exit code 66, " + folder_ / "wrong/logs/"));
}

TEST_F(SweepCommandTest, EverySweepThatComesWithTandemCanBePlanned) {
  std::map<std::string, size_t> runs;
  for (const auto& entry :
       std::filesystem::directory_iterator(std::string(kSourceDir) + "/configs/sweeps")) {
    const std::string path = entry.path().string();
    SCOPED_TRACE(path);
    ConfigNode root = parse_yaml_file(path);
    const auto absolute = [](ConfigNode& map) {  // configs are named from the repository
      if (ConfigNode* base = map.find("base"))
        base->scalar = std::string(kSourceDir) + "/" + base->scalar;
    };
    absolute(root);
    if (ConfigNode* list = root.find("runs"))
      std::for_each(list->items.begin(), list->items.end(), absolute);
    const SweepPlan plan = plan_sweep(root, path, model_factory());
    runs[plan.name] = plan.runs.size();
    if (!plan.name.ends_with("_tiny")) continue;
    for (const SweepRun& run : plan.runs) {
      EXPECT_GE(run.parameters.total, 50'000) << run.name;
      EXPECT_LE(run.parameters.total, 2'100'000) << run.name;
    }
    EXPECT_LE(plan.compute(), 2e13);
  }
  EXPECT_EQ(runs["yoco_sizes"], 21u);
  EXPECT_EQ(runs["yoco_sizes_tiny"], 21u);
  for (const char* name :
       {"block_transformer_sizes", "block_length", "block_split", "yoco_layouts", "iso_flop"}) {
    EXPECT_GE(runs[name], 4u) << name;
    EXPECT_GE(runs[name + std::string("_tiny")], 4u) << name;
  }
}

TEST_F(SweepCommandTest, MistakesInTheCommand) {
  EXPECT_EQ(run_captured(run_sweep, "tandem sweep", {}).code, kExitUsage);
  EXPECT_EQ(error_of([&] { run_captured(run_sweep, "tandem sweep", {folder_ / "none.yaml"}); }),
            folder_ / "none.yaml" + ": cannot open: No such file or directory");
  EXPECT_EQ(error_of(
                [&] {
                  run_captured(run_sweep, "tandem sweep", {sweep_, "gird.x=1", "--dry-run"});
                },
                kExitUsage)
                .substr(0, 33),
            "command line: unknown key gird; d");
  const Ran help = run_captured(run_sweep, "tandem sweep", {"--help"});
  EXPECT_THAT(help.out, HasSubstr("Example: tandem sweep "));
}

}  // namespace
}  // namespace tandem
