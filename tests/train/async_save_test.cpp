#include "train/async_save.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <cmath>
#include <csignal>

#include "tests/train/helpers.h"
#include "train/stop_signal.h"

namespace tandem {
namespace {

CheckpointContents contents_at(int64_t step, int64_t rows = 100) {
  CheckpointContents contents;
  contents.step = step;
  contents.weights = {whole_piece("", "w", torch::full({rows, 30}, static_cast<double>(step))),
                      whole_piece("", "v", torch::arange(7, torch::kFloat32)),
                      whole_piece("", "none", torch::empty({0, 3}))};
  contents.optimizer = {whole_piece("exp_avg", "w", torch::ones({rows, 30}))};
  contents.config_yaml = "a: 1\n";
  contents.state = {{"step", step}};
  return contents;
}

CheckpointConfig keeping(int64_t keep) {
  CheckpointConfig config;
  config.keep = keep;
  return config;
}

/// A run folder that a test can break: its `checkpoints` become a file, which is in the way even of
/// root.
struct SaverTest : testing::TestWithParam<bool> {
  void break_folder() {
    remove_tree(dir.file("checkpoints"));
    write_file(dir.file("checkpoints"), "in the way");
  }
  void mend_folder() {
    remove_tree(dir.file("checkpoints"));
    make_directories(dir.file("checkpoints"));
  }
  std::string broken(int64_t step) const {
    return checkpoint_folder(dir.path(), step) +
           ".partial: cannot make the folder: Not a directory";
  }
  /// The error of saving `contents`, wherever it is thrown.
  std::string error_of_save(Saver& saver, const CheckpointContents& contents, int exit_code) {
    return error_of(
        [&] {
          saver.save(contents, keeping(3), {});
          saver.wait();
        },
        exit_code);
  }
  TempFolder folder;
  RunDir dir{folder / "run"};
};
INSTANTIATE_TEST_SUITE_P(Sync, SaverTest, testing::Values(false));
INSTANTIATE_TEST_SUITE_P(Async, SaverTest, testing::Values(true));

TEST_P(SaverTest, SavesAndReportsOnce) {
  Saver saver(dir, GetParam());
  EXPECT_FALSE(saver.busy());
  EXPECT_FALSE(saver.take_report());
  saver.save(contents_at(2), keeping(2), {});
  saver.wait();
  const auto report = saver.take_report();
  ASSERT_TRUE(report);
  EXPECT_EQ(report->step, 2);
  EXPECT_EQ(report->folder, checkpoint_folder(dir.path(), 2));
  EXPECT_GT(report->write_seconds, 0);
  EXPECT_FALSE(saver.take_report());
  EXPECT_FALSE(saver.busy());
  for (const int64_t step : {4, 6, 8, 10}) saver.save(contents_at(step), keeping(2), 4);
  saver.wait();
  EXPECT_EQ(saver.take_report()->step, 10);  // the last
  EXPECT_EQ(checkpoint_steps(dir.path()), (std::vector<int64_t>{4, 8, 10}));
  for (const int64_t step : {4, 8, 10}) Checkpoint(checkpoint_folder(dir.path(), step)).verify();
}

TEST_P(SaverTest, AnErrorIsThrownOnce) {
  Saver saver(dir, GetParam());
  saver.save(contents_at(1), keeping(3), {});
  saver.wait();
  EXPECT_EQ(saver.take_report()->step, 1);
  break_folder();
  EXPECT_EQ(error_of_save(saver, contents_at(2), kExitCannotWrite), broken(2));
  saver.wait();
  EXPECT_FALSE(saver.take_report());
  mend_folder();
  saver.save(contents_at(2), keeping(3), {});
  saver.wait();
  EXPECT_EQ(saver.take_report()->step, 2);
  EXPECT_EQ(dir.newest()->step(), 2);
}

TEST_P(SaverTest, AFullDiskLeavesThePreviousCheckpoint) {
  const StopSignal ignores_sigxfsz;
  Saver saver(dir, GetParam());
  saver.save(contents_at(1), keeping(1), {});
  saver.wait();
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  const rlimit limit{9000, before.rlim_max};
  setrlimit(RLIMIT_FSIZE, &limit);
  const std::string message = error_of_save(saver, contents_at(2), kExitCannotWrite);
  setrlimit(RLIMIT_FSIZE, &before);
  EXPECT_EQ(message, checkpoint_folder(dir.path(), 2) +
                         ".partial/model.safetensors: cannot write: File too large");
  EXPECT_EQ(list_directory(dir.file("checkpoints")), std::vector<std::string>{"step-00000001"});
  saver.save(contents_at(2), keeping(1), {});
  saver.wait();
  EXPECT_EQ(dir.newest()->step(), 2);
}

TEST_P(SaverTest, NumbersThatAreNotFiniteAreNotWritten) {
  Saver saver(dir, GetParam());
  saver.save(contents_at(1), keeping(3), {});
  CheckpointContents bad = contents_at(2);
  bad.weights[1].data[3] = NAN;
  const std::string ending = " holds a number that is not finite; no checkpoint of it was written";
  EXPECT_EQ(error_of_save(saver, bad, kExitStopped), "step 2: v" + ending);
  bad = contents_at(3);
  bad.optimizer[0].data[2999] = -INFINITY;
  EXPECT_EQ(error_of_save(saver, bad, kExitStopped), "step 3: exp_avg.w" + ending);
  EXPECT_EQ(list_directory(dir.file("checkpoints")), std::vector<std::string>{"step-00000001"});
}

TEST_P(SaverTest, DestroyingItFinishesWhatIsInFlight) {
  { Saver(dir, GetParam()).save(contents_at(5), keeping(3), {}); }
  EXPECT_EQ(dir.newest()->step(), 5);
}

TEST(SaverAsyncTest, TheNextSaveThrowsAndStartsNothing) {
  const TempFolder folder;
  RunDir dir(folder / "run");
  Saver saver(dir, true);
  CheckpointContents bad = contents_at(1);
  bad.weights[0].data[2999] = NAN;
  saver.save(bad, keeping(3), {});
  error_of([&] { saver.save(contents_at(2), keeping(3), {}); }, kExitStopped);
  EXPECT_FALSE(saver.busy());
  EXPECT_FALSE(dir.newest());
  saver.save(contents_at(2), keeping(3), {});
  saver.wait();
  EXPECT_EQ(dir.newest()->step(), 2);
}

TEST(SaverAsyncTest, TheCallerGoesOnAndTheNextSaveWaits) {
  const TempFolder folder;
  RunDir dir(folder / "run");
  Saver saver(dir, true);
  int64_t went_on = 0;
  for (int64_t step = 1; step <= 5; ++step) {
    saver.save(contents_at(step, 10'000), keeping(5), {});
    went_on += saver.busy();
    if (step > 1) Checkpoint(checkpoint_folder(dir.path(), step - 1)).verify();  // it is over
  }
  saver.wait();
  EXPECT_GT(went_on, 0);
  EXPECT_EQ(checkpoint_steps(dir.path()).size(), 5u);
}

TEST(SaverAsyncTest, AnErrorThatNobodyAskedForIsLogged) {
  const TempFolder folder;
  RunDir dir(folder / "run");
  CheckpointContents bad = contents_at(1);
  bad.weights[1].data[0] = INFINITY;
  testing::internal::CaptureStderr();
  { Saver(dir, true).save(bad, keeping(3), {}); }
  EXPECT_EQ(testing::internal::GetCapturedStderr(),
            "warning: step 1: v holds a number that is not finite; no checkpoint of it was "
            "written\n");
}

TEST(SaverAsyncTest, WritesTheSameBytesAsWithoutAThread) {
  const TempFolder folder;
  RunDir dirs[] = {RunDir(folder / "sync"), RunDir(folder / "async")};
  for (const bool async : {false, true})
    Saver(dirs[async], async).save(contents_at(3), keeping(3), {});
  EXPECT_EQ(bytes_of_folder(checkpoint_folder(dirs[0].path(), 3)),
            bytes_of_folder(checkpoint_folder(dirs[1].path(), 3)));
}

// Else a SIGTERM could interrupt the thread's system calls rather than the training's.
TEST(SaverAsyncTest, ItsThreadBlocksSignals) {
  const TempFolder folder;
  RunDir dir(folder / "run");
  const auto threads = [] { return list_directory("/proc/self/task"); };
  const auto before = threads();
  Saver saver(dir, true);
  saver.save(contents_at(1), keeping(1), {});
  saver.wait();  // it runs: a thread that only starts blocks everything
  int64_t found = 0;
  for (const auto& thread : threads()) {
    if (std::binary_search(before.begin(), before.end(), thread)) continue;
    const std::string status = read_text("/proc/self/task/" + thread + "/status");
    const size_t at = status.find("SigBlk:");
    ASSERT_NE(at, status.npos);
    const uint64_t blocked = std::stoull(status.substr(at + 7, 20), nullptr, 16);
    for (const int number : {SIGTERM, SIGINT, SIGUSR1})
      EXPECT_TRUE(blocked >> (number - 1) & 1) << number;
    for (const int number : {SIGSEGV, SIGBUS}) EXPECT_FALSE(blocked >> (number - 1) & 1) << number;
    ++found;
  }
  EXPECT_EQ(found, 1);
  sigset_t mine;
  pthread_sigmask(SIG_SETMASK, nullptr, &mine);
  EXPECT_FALSE(sigismember(&mine, SIGTERM));
}

TEST(FirstNotFiniteTest, LooksAtEveryElement) {
  CheckpointContents contents = contents_at(1);
  contents.weights[1].data[0] = 3.4028234e38f;  // the largest number
  contents.weights[1].data[1] = 1e-45f;         // the smallest
  EXPECT_EQ(first_not_finite(contents), "");
  for (const float bad : {NAN, -NAN, INFINITY, -INFINITY}) {
    for (int64_t i = 0; i < 7; ++i) {
      contents.weights[1].data = torch::arange(7, torch::kFloat32);
      contents.weights[1].data[i] = bad;
      EXPECT_EQ(first_not_finite(contents), "v") << bad << " at " << i;
    }
  }
}

}  // namespace
}  // namespace tandem
