#include "train/run_dir.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <algorithm>

#include "core/random.h"
#include "tests/core/helpers.h"
#include "tests/train/helpers.h"
#include "train/stop_signal.h"

namespace tandem {
namespace {

CheckpointContents contents_at(int64_t step) {
  CheckpointContents contents;
  contents.step = step;
  contents.weights = {whole_piece("", "w", torch::full({100, 30}, static_cast<double>(step)))};
  contents.config_yaml = "a: 1\n";
  contents.state = {{"step", step}};
  return contents;
}

CheckpointConfig keeping(int64_t keep, std::optional<int64_t> keep_every = {}) {
  CheckpointConfig config;
  config.keep = keep;
  config.keep_every = keep_every;
  return config;
}

TEST(RunDirTest, RemovesAllButTheNewestAndTheMultiples) {
  EXPECT_EQ(steps_to_remove({2, 4, 6, 8, 10}, keeping(2)), (std::vector<int64_t>{2, 4, 6}));
  EXPECT_EQ(steps_to_remove({2, 4, 6, 8, 10}, keeping(2, 4)), (std::vector<int64_t>{2, 6}));
  EXPECT_EQ(steps_to_remove({2, 4, 6, 8, 10}, keeping(2, 4), 6), std::vector<int64_t>{2});
  EXPECT_EQ(steps_to_remove({2, 4, 6}, keeping(2), 6), std::vector<int64_t>{2});
  EXPECT_EQ(steps_to_remove({2, 4, 6}, keeping(2), 5), std::vector<int64_t>{2});
  EXPECT_EQ(steps_to_remove({2, 4}, keeping(2)), std::vector<int64_t>{});
  EXPECT_EQ(steps_to_remove({}, keeping(1)), std::vector<int64_t>{});
}

TEST(RunDirTest, SavingKeepsWhatTheConfigSays) {
  const TempFolder folder;
  RunDir dir(folder / "run");
  for (int64_t step = 3; step <= 18; step += 3) dir.save(contents_at(step), keeping(2, 9));
  EXPECT_EQ(checkpoint_steps(dir.path()), (std::vector<int64_t>{9, 15, 18}));
  EXPECT_EQ(dir.newest()->step(), 18);
}

TEST(RunDirTest, SavingKeepsTheProtectedStepAndItsOwn) {
  const TempFolder folder;
  RunDir dir(folder / "run");
  for (const int64_t step : {2, 4, 6, 8}) dir.save(contents_at(step), keeping(1), 4);
  EXPECT_EQ(checkpoint_steps(dir.path()), (std::vector<int64_t>{4, 8}));
  // Of steps that were taken back: the newest by number is not the newest.
  dir.save(contents_at(6), keeping(1));
  EXPECT_EQ(checkpoint_steps(dir.path()), (std::vector<int64_t>{6, 8}));
}

TEST(RunDirTest, ACheckpointOfTheSameStepGivesWay) {
  const TempFolder folder;
  const StopSignal ignores_sigxfsz;
  RunDir dir(folder / "run");
  const auto state = [&] { return Checkpoint(checkpoint_folder(dir.path(), 3)).state().dump(); };
  CheckpointContents contents = contents_at(3);
  dir.save(contents, keeping(1));
  contents.state["again"] = true;
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  const rlimit limit{9000, before.rlim_max};
  setrlimit(RLIMIT_FSIZE, &limit);
  EXPECT_THROW(dir.save(contents, keeping(1)), UserError);
  setrlimit(RLIMIT_FSIZE, &before);
  EXPECT_EQ(state(), R"({"step":3})");
  dir.save(contents, keeping(1));
  EXPECT_EQ(state(), R"({"step":3,"again":true})");
  EXPECT_EQ(list_directory(dir.file("checkpoints")), std::vector<std::string>{"step-00000003"});
}

TEST(RunDirTest, AKilledReplacementIsSettled) {
  const TempFolder folder;
  std::string path;
  {
    RunDir dir(folder / "run");
    path = dir.save(contents_at(3), keeping(1));
  }
  const auto state_after_start = [&] {
    const std::string state = RunDir(folder / "run").newest()->state().dump();
    EXPECT_EQ(list_directory(folder / "run/checkpoints"),
              std::vector<std::string>{"step-00000003"});
    return state;
  };
  CheckpointContents contents = contents_at(3);
  contents.state["again"] = true;
  write_checkpoint(path + ".next", contents);  // killed before the old one was taken away
  EXPECT_EQ(state_after_start(), R"({"step":3})");
  write_checkpoint(path + ".next", contents);
  rename_file(path, path + ".removed");  // and after
  EXPECT_EQ(state_after_start(), R"({"step":3,"again":true})");
}

TEST(RunDirTest, StepsThatAreTakenBackTakeTheirCheckpointsAlong) {
  const TempFolder folder;
  RunDir dir(folder / "run");
  for (const int64_t step : {2, 4, 6, 8}) dir.save(contents_at(step), keeping(9));
  dir.remove_after(5);
  EXPECT_EQ(list_directory(dir.file("checkpoints")),
            (std::vector<std::string>{"step-00000002", "step-00000004"}));
  dir.remove_after(0);
  EXPECT_FALSE(dir.newest());
}

TEST(RunDirTest, AnOldCheckpointThatCannotBeRemovedIsOnlyWarnedOf) {
  const TempFolder folder;
  RunDir dir(folder / "run");
  const std::string old = dir.save(contents_at(1), keeping(1)), removed = old + ".removed";
  ASSERT_EQ(::chmod(folder.path().c_str(), 0755), 0);
  ASSERT_EQ(::chmod(old.c_str(), 0555), 0);
  ASSERT_EQ(::chmod(dir.file("checkpoints").c_str(), 0777), 0);
  std::string logged;
  {
    const WithoutPrivileges user;
    if (!user.held()) GTEST_SKIP() << "root here may not become an ordinary user";
    logged = printed([&] { dir.save(contents_at(2), keeping(1)); });
  }
  EXPECT_EQ(logged, "warning: " + removed + ": cannot remove: Permission denied\n");
  EXPECT_EQ(dir.newest()->step(), 2);
  EXPECT_EQ(checkpoint_steps(dir.path()), std::vector<int64_t>{2});
  ASSERT_EQ(::chmod(removed.c_str(), 0755), 0);
  dir.save(contents_at(3), keeping(1));  // tries again
  EXPECT_EQ(list_directory(dir.file("checkpoints")), std::vector<std::string>{"step-00000003"});
}

TEST(RunDirTest, WhatIsInTheWayIsNamed) {
  const TempFolder folder;
  write_file(folder / "file", "in the way");
  EXPECT_EQ(error_of([&] { RunDir(folder / "file"); }, kExitCannotWrite),
            (folder / "file/checkpoints") + ": cannot make the folder: Not a directory");
  RunDir dir(folder / "run");
  remove_tree(dir.file("checkpoints"));
  write_file(dir.file("checkpoints"), "in the way");
  EXPECT_EQ(error_of([&] { dir.save(contents_at(2), keeping(1)); }, kExitCannotWrite),
            (folder / "run/checkpoints/step-00000002.partial") +
                ": cannot make the folder: Not a directory");
}

TEST(RunDirTest, OneProcessAtATime) {
  const TempFolder folder;
  const RunDir dir(folder / "run");
  const std::string message = error_of([&] { RunDir(folder / "run"); }, kExitUsage);
  EXPECT_TRUE(message.starts_with((folder / "run") +
                                  ": another run is using this folder (process " +
                                  std::to_string(getpid()) + " on "))
      << message;
}

TEST(RunDirTest, RemovesWhatKilledSavesLeft) {
  const TempFolder folder;
  for (const char* name : {"step-00000003.partial", "step-00000001.removed"}) {
    write_file(folder / ("run/checkpoints/" + std::string(name) + "/config.yaml"), "a: 1\n");
  }
  RunDir dir(folder / "run");
  EXPECT_EQ(list_directory(folder / "run/checkpoints"), std::vector<std::string>{});
  EXPECT_FALSE(dir.newest());
}

TEST(RunDirTest, FallsBackPastDamageAndSetsItAside) {
  const TempFolder folder;
  RunDir dir(folder / "run");
  for (const int64_t step : {2, 4, 6}) dir.save(contents_at(step), keeping(5));
  for (const int64_t step : {4, 6}) {
    const std::string path = checkpoint_folder(dir.path(), step) + "/model.safetensors";
    std::string bytes = file_bytes(path);
    bytes.back() ^= 1;
    write_file(path, bytes);
  }
  EXPECT_EQ(dir.newest()->step(), 2);
  EXPECT_EQ(list_directory(folder / "run/checkpoints"),
            (std::vector<std::string>{"step-00000002", "step-00000004.damaged",
                                      "step-00000006.damaged"}));
  dir.save(contents_at(4), keeping(5));  // the step comes again
  EXPECT_EQ(dir.newest()->step(), 4);
}

TEST(RunDirTest, NeverStartsAnewOverDamagedCheckpoints) {
  const TempFolder folder;
  RunDir dir(folder / "run");
  for (const int64_t step : {2, 4}) {
    dir.save(contents_at(step), keeping(5));
    write_file(checkpoint_folder(dir.path(), step) + "/state.json", "{}");
  }
  EXPECT_EQ(error_of([&] { dir.newest(); }),
            (folder / "run") + ": none of its 2 checkpoints verifies");
  EXPECT_EQ(checkpoint_steps(dir.path()), (std::vector<int64_t>{2, 4}));
}

// A random history of saves, damage and crashes: once one was saved, there is always one that
// verifies, and the newest good one is found.
TEST(RunDirTest, OneGoodCheckpointAlwaysStays) {
  const RandomStream random(17);
  for (uint64_t history = 0; history < 5; ++history) {
    const TempFolder folder;
    auto draw = [&, n = uint64_t{0}](uint64_t below) mutable {
      return random.fork(history).below(n++, below);
    };
    const CheckpointConfig config = keeping(1 + static_cast<int64_t>(draw(3)));
    int64_t newest_good = 0, step = 0;
    for (int event = 0; event < 10; ++event) {
      RunDir dir(folder / "run");
      const auto found = dir.newest();
      ASSERT_EQ(found ? found->step() : 0, newest_good) << "history " << history;
      step = newest_good + 1 + static_cast<int64_t>(draw(2));
      switch (draw(3)) {
        case 0:  // killed in a save
          write_file(checkpoint_folder(dir.path(), step) + ".partial/model.safetensors", "half");
          break;
        case 1:  // saved, then damaged by the disk; an older one must still be good
          if (newest_good == 0 || config.keep == 1) break;
          dir.save(contents_at(step), config);
          write_file(checkpoint_folder(dir.path(), step) + "/config.yaml", "b: 1\n");
          break;
        default:
          dir.save(contents_at(step), config);
          newest_good = step;
      }
    }
  }
}

TEST(RunDirTest, AFullDiskLeavesThePreviousCheckpoint) {
  const TempFolder folder;
  const StopSignal ignores_sigxfsz;
  RunDir dir(folder / "run");
  dir.save(contents_at(1), keeping(1));
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  for (const rlim_t bytes : {0, 5, 300, 9000}) {  // each file in turn is the one that does not fit
    const rlimit limit{bytes, before.rlim_max};
    setrlimit(RLIMIT_FSIZE, &limit);
    std::string message;
    try {
      dir.save(contents_at(2), keeping(1));
    } catch (const UserError& error) {
      message = error.what();
      EXPECT_EQ(error.exit_code(), kExitCannotWrite);
    }
    setrlimit(RLIMIT_FSIZE, &before);
    EXPECT_NE(message.find("cannot write: File too large"), std::string::npos) << message;
    EXPECT_EQ(list_directory(folder / "run/checkpoints"),
              std::vector<std::string>{"step-00000001"});
    EXPECT_EQ(dir.newest()->step(), 1);
  }
  dir.save(contents_at(2), keeping(1));
  EXPECT_EQ(dir.newest()->step(), 2);
}

TEST(RunDirTest, MetricsAreCutBackToAStep) {
  const TempFolder folder;
  RunDir dir(folder / "run");
  dir.cut_metrics(0);  // there are none yet
  const std::string kept =
      "{\"step\":1,\"loss\":2.5}\n{\"step\":2,\"loss\":2.25}\n{\"step\":2,\"validation_loss\":3}\n";
  write_file(dir.file("metrics.jsonl"), kept + "{\"step\":3,\"loss\":1}\n{\"step\":4,\"lo");
  EXPECT_TRUE(dir.has_metric(2, "validation_loss"));
  EXPECT_FALSE(dir.has_metric(1, "validation_loss"));
  dir.cut_metrics(2);
  EXPECT_EQ(read_text(dir.file("metrics.jsonl")), kept);
  // A line that a power cut left is named and left out.
  write_file(dir.file("metrics.jsonl"), "{\"step\":1}\n{\"step\":x}\n{\"step\":2}\n");
  const std::string warning = printed([&] { dir.cut_metrics(2); });
  EXPECT_TRUE(warning.starts_with("warning: " + dir.path() + "/metrics.jsonl:2: ")) << warning;
  EXPECT_EQ(read_text(dir.file("metrics.jsonl")), "{\"step\":1}\n{\"step\":2}\n");
}

TEST(RunDirTest, EveryStartIsRecorded) {
  const TempFolder folder;
  RunDir dir(folder / "run");
  dir.record_start("a: 1\n", {{"data_hash", "x"}}, {{"step", 0}});
  dir.record_start("a: 2\n", {{"data_hash", "x"}}, {{"step", 7}});
  EXPECT_EQ(read_json(dir.file("run.json")).dump(),
            R"({"data_hash":"x","starts":[{"step":0},{"step":7}]})");
  EXPECT_EQ(read_text(dir.file("config.yaml")), "a: 2\n");
}

}  // namespace
}  // namespace tandem
