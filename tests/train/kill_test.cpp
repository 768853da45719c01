#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "core/random.h"
#include "nn/checkpoint.h"
#include "tests/paths.h"
#include "tests/process.h"
#include "tests/train/helpers.h"

// The program itself, killed and stopped from outside.

namespace tandem {
namespace {

using Clock = std::chrono::steady_clock;
constexpr auto kLongest = std::chrono::seconds(120);

/// `tandem train` and its arguments.
std::vector<std::string> train_words(const std::string& config, const std::string& run_folder,
                                     const std::vector<std::string>& more) {
  std::vector<std::string> words = {kTandemProgram, "train",    config, "--out",
                                    run_folder,     "--device", "cpu"};
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

/// `tandem train` in a process of its own.
class TrainProcess : public Process {
 public:
  TrainProcess(const std::string& config, const std::string& run_folder,
               const std::vector<std::string>& more = {})
      : Process(train_words(config, run_folder, more), run_folder + ".stderr") {}
};

class KillSlowTest : public testing::Test {
 protected:
  KillSlowTest() : config_(folder_ / "tiny.yaml") {
    ConfigNode root = parse_yaml(tiny_yaml(folder_.path()), "tiny.yaml");
    for (const char* word : {"training.steps=120", "lr_schedule.steps=120",
                             "checkpoint={every: 2, keep: 2}", "validation.every=7"}) {
      apply_override(root, word);
    }
    write_file(config_, to_yaml(root));
    const auto begin = Clock::now();
    EXPECT_EQ(TrainProcess(config_, folder_ / "whole").wait(), 0)
        << read_text(folder_ / "whole.stderr");
    whole_seconds_ = std::chrono::duration<double>(Clock::now() - begin).count();
  }
  void expect_same_as_whole(const std::string& run) {
    EXPECT_EQ(metrics_of(folder_ / run), metrics_of(folder_ / "whole"));
    EXPECT_TRUE(bytes_of_folder(checkpoint_folder(folder_ / run, 120)) ==
                bytes_of_folder(checkpoint_folder(folder_ / "whole", 120)));
  }
  /// Waits until the run has written metrics of `lines` steps.
  void wait_for_lines(const std::string& run, int64_t lines) {
    const std::string path = folder_ / (run + "/metrics.jsonl");
    for (const auto begin = Clock::now(); Clock::now() - begin < kLongest;) {
      if (exists(path)) {
        const std::string text = read_text(path);
        if (std::count(text.begin(), text.end(), '\n') >= lines) return;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    ADD_FAILURE() << "no " << lines << " lines in " << path;
  }
  TempFolder folder_;
  std::string config_;
  double whole_seconds_ = 0;
};

TEST_F(KillSlowTest, KilledAtRandomMomentsEqualsNeverKilled) {
  const RandomStream random(23);
  int killed = 0;
  for (uint64_t i = 0; i < 3; ++i) {
    TrainProcess process(config_, folder_ / "part");
    std::this_thread::sleep_for(
        std::chrono::duration<double>(random.uniform(i) * whole_seconds_ / 4));
    process.send(SIGKILL);
    killed += process.wait() == 128 + SIGKILL;
  }
  EXPECT_GE(killed, 1);  // the first comes within a quarter of the time that the run takes
  EXPECT_EQ(TrainProcess(config_, folder_ / "part").wait(), 0)
      << read_text(folder_ / "part.stderr");
  expect_same_as_whole("part");
}

TEST_F(KillSlowTest, KilledRightAfterAStepIsWritten) {
  for (const int64_t lines : {3, 10, 40}) {  // the save of an even step is likely to be under way
    TrainProcess process(config_, folder_ / "part");
    wait_for_lines("part", lines);
    process.send(SIGKILL);
    EXPECT_EQ(process.wait(), 128 + SIGKILL);
  }
  EXPECT_EQ(TrainProcess(config_, folder_ / "part").wait(), 0)
      << read_text(folder_ / "part.stderr");
  expect_same_as_whole("part");
}

TEST_F(KillSlowTest, SigtermSavesAndExits143) {
  TrainProcess process(config_, folder_ / "part");
  wait_for_lines("part", 9);
  process.send(SIGTERM);
  EXPECT_EQ(process.wait(), 143);
  const auto metrics = metrics_of(folder_ / "part");
  EXPECT_EQ(checkpoint_steps(folder_ / "part").back(), metrics.back().at("step").get<int64_t>());
  EXPECT_EQ(TrainProcess(config_, folder_ / "part").wait(), 0);
  expect_same_as_whole("part");
}

TEST_F(KillSlowTest, ASecondSignalExitsAtOnceAndHarmsNothing) {
  TrainProcess process(config_, folder_ / "part");
  wait_for_lines("part", 9);
  process.send(SIGINT);
  process.send(SIGTERM);
  const int code = process.wait();
  EXPECT_TRUE(code == 143 || code == 130)
      << code;  // two pending signals are handled in either order
  EXPECT_EQ(TrainProcess(config_, folder_ / "part").wait(), 0);
  expect_same_as_whole("part");
}

TEST_F(KillSlowTest, ARunFolderInUseIsRefused) {
  TrainProcess process(config_, folder_ / "part");
  wait_for_lines("part", 1);
  EXPECT_EQ(TrainProcess(config_, folder_ / "part").wait(), 2);
  EXPECT_NE(read_text(folder_ / "part.stderr").find("another run is using this folder (process "),
            std::string::npos);
  process.send(SIGTERM);
  EXPECT_EQ(process.wait(), 143);
}

TEST_F(KillSlowTest, AChangedConfigIsRefused) {
  EXPECT_EQ(TrainProcess(config_, folder_ / "whole", {"training.seed=6"}).wait(), 2);
  EXPECT_NE(read_text(folder_ / "whole.stderr").find("training.seed was 5, is 6"),
            std::string::npos);
  EXPECT_EQ(TrainProcess(config_, folder_ / "whole").wait(), 0);
  EXPECT_NE(read_text(folder_ / "whole.stderr").find("finished, at step 120 of 120"),
            std::string::npos);
}

}  // namespace
}  // namespace tandem
