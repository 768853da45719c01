// The run folder and the saver of a run of several ranks.
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <cmath>

#include "comm/agreement.h"
#include "tests/comm/thread_ranks.h"
#include "tests/train/helpers.h"
#include "train/async_save.h"
#include "train/stop_signal.h"

namespace tandem {
namespace {

constexpr int64_t kRanks = 3;

/// A third of a weight and of its moment.
CheckpointContents contents_at(int64_t step, int64_t rank, int64_t rows = 100) {
  ParameterInfo info;
  info.name = "w";
  info.global_shape = {rows, 31};
  const int64_t begin = rank * rows * 31 / kRanks, end = (rank + 1) * rows * 31 / kRanks;
  CheckpointContents contents;
  contents.step = step;
  for (const std::string kind : {"", "exp_avg"}) {
    const Tensor values = torch::arange(begin, end, torch::kFloat32) + static_cast<double>(step);
    auto& pieces = kind.empty() ? contents.weights : contents.optimizer;
    pieces.push_back(piece_of(kind, info, begin, end, values));
  }
  contents.config_yaml = "a: 1\n";
  contents.state = {{"step", step}};
  return contents;
}

CheckpointConfig keeping(int64_t keep) {
  CheckpointConfig config;
  config.keep = keep;
  return config;
}

/// The same text on every rank.
void expect_agreed(Communicator& group, const std::string& text) {
  for (const auto& other : texts_of_all(group, text)) EXPECT_EQ(other, text);
}

/// Calls body(dir, mesh) on every rank of one run.
void run_in(const std::string& path, const std::function<void(RunDir&, Mesh&)>& body) {
  run_mesh({.data = kRanks}, [&](Mesh& mesh, int64_t) {
    RunDir dir(path, *mesh.control, *mesh.save);
    body(dir, mesh);
  });
}

TEST(RunDirMeshTest, AllRanksFindTheSame) {
  const TempFolder folder;
  run_in(folder / "run", [&](RunDir& dir, Mesh& mesh) {
    EXPECT_FALSE(dir.newest());
    for (const int64_t step : {2, 4, 6}) {
      EXPECT_EQ(dir.save(contents_at(step, mesh.save->rank()), keeping(2)),
                checkpoint_folder(dir.path(), step));
    }
    EXPECT_EQ(dir.newest()->step(), 6);
    on_first(*mesh.control, [&] {
      write_file(checkpoint_folder(dir.path(), 6) + "/state.json", "{\"step\": 7}");
    });
    EXPECT_EQ(dir.newest()->step(), 4);
    EXPECT_EQ(list_directory(dir.file("checkpoints")),
              (std::vector<std::string>{"step-00000004", "step-00000006.damaged"}));
    mesh.control->barrier();
    dir.save(contents_at(6, mesh.save->rank()), keeping(2));
    EXPECT_EQ(dir.newest()->step(), 6);
    dir.remove_after(4);
    EXPECT_EQ(dir.newest()->step(), 4);
  });
  EXPECT_EQ(RunDir(folder / "run").newest()->step(), 4);  // one process reads it too
}

TEST(RunDirMeshTest, ACheckpointOfTheSameStepGivesWay) {
  const TempFolder folder;
  run_in(folder / "run", [&](RunDir& dir, Mesh& mesh) {
    CheckpointContents contents = contents_at(3, mesh.save->rank());
    dir.save(contents, keeping(1));
    contents.state["again"] = true;
    dir.save(contents, keeping(1));
    EXPECT_EQ(dir.newest()->state().dump(), R"({"step":3,"again":true})");
  });
  EXPECT_EQ(list_directory(folder / "run/checkpoints"), std::vector<std::string>{"step-00000003"});
}

TEST(RunDirMeshTest, AFolderInUseIsRefusedOnAllRanks) {
  const TempFolder folder;
  const RunDir other(folder / "run");
  run_mesh({.data = kRanks}, [&](Mesh& mesh, int64_t) {
    const std::string message =
        error_of([&] { RunDir(folder / "run", *mesh.control, *mesh.save); }, kExitUsage);
    EXPECT_TRUE(message.starts_with((folder / "run") +
                                    ": another run is using this folder (process " +
                                    std::to_string(getpid()) + " on "));
    expect_agreed(*mesh.control, message);
  });
}

TEST(RunDirMeshTest, DamagedCheckpointsAreEverybodysError) {
  const TempFolder folder;
  run_in(folder / "run", [&](RunDir& dir, Mesh& mesh) {
    dir.save(contents_at(2, mesh.save->rank()), keeping(2));
    on_first(*mesh.control,
             [&] { write_file(checkpoint_folder(dir.path(), 2) + "/config.yaml", ""); });
    EXPECT_EQ(error_of([&] { dir.newest(); }),
              (folder / "run") + ": none of its 1 checkpoints verifies");
  });
}

TEST(RunDirMeshTest, MetricsAndStartsAreReadForAll) {
  const TempFolder folder;
  run_in(folder / "run", [&](RunDir& dir, Mesh& mesh) {
    EXPECT_TRUE(dir.last_start().is_null());
    dir.record_start("a: 1\n", {{"data_hash", "x"}}, {{"step", 7}});
    EXPECT_EQ(dir.last_start().dump(), R"({"step":7})");
    on_first(*mesh.control, [&] {
      write_file(dir.file("metrics.jsonl"), "{\"step\":1,\"loss\":2}\n{\"step\":2,\"loss\":1}\n");
    });
    EXPECT_TRUE(dir.has_metric(2, "loss"));
    dir.cut_metrics(1);
    EXPECT_FALSE(dir.has_metric(2, "loss"));
    EXPECT_TRUE(dir.has_metric(1, "loss"));
  });
  EXPECT_EQ(read_json(folder / "run/run.json").at("starts").size(), 1u);  // rank 0's alone
}

struct SaverMeshTest : testing::TestWithParam<bool> {
  /// The error of a save, wherever it is thrown.
  static std::string error_of_save(Saver& saver, const CheckpointContents& contents,
                                   int exit_code) {
    return error_of(
        [&] {
          saver.save(contents, keeping(3), {});
          saver.wait();
        },
        exit_code);
  }
  TempFolder folder;
};
INSTANTIATE_TEST_SUITE_P(Sync, SaverMeshTest, testing::Values(false));
INSTANTIATE_TEST_SUITE_P(Async, SaverMeshTest, testing::Values(true));

TEST_P(SaverMeshTest, AllRanksReportTheSame) {
  run_in(folder / "run", [&](RunDir& dir, Mesh& mesh) {
    Saver saver(dir, GetParam());
    EXPECT_FALSE(saver.busy_anywhere());
    for (const int64_t step : {2, 4, 6}) {
      saver.save(contents_at(step, mesh.save->rank()), keeping(2), {});
      saver.wait();
      EXPECT_FALSE(saver.busy_anywhere());
      const auto report = saver.take_report();
      ASSERT_TRUE(report);
      EXPECT_EQ(report->step, step);
      EXPECT_EQ(report->folder, checkpoint_folder(dir.path(), step));
    }
    EXPECT_EQ(dir.newest()->step(), 6);
    EXPECT_EQ(checkpoint_steps(dir.path()), (std::vector<int64_t>{4, 6}));
  });
}

TEST_P(SaverMeshTest, ANumberThatIsNotFiniteOnOneRankStopsAll) {
  run_in(folder / "run", [&](RunDir& dir, Mesh& mesh) {
    Saver saver(dir, GetParam());
    const int64_t rank = mesh.save->rank();
    CheckpointContents bad = contents_at(2, rank);
    if (rank == 1) bad.optimizer[0].data[5] = NAN;
    EXPECT_EQ(error_of_save(saver, bad, kExitStopped),
              "step 2: exp_avg.w holds a number that is not finite; no checkpoint of it was "
              "written (rank 1)");
    EXPECT_FALSE(saver.take_report());
    EXPECT_FALSE(dir.newest());
    saver.save(contents_at(4, rank), keeping(3), {});
    saver.wait();
    EXPECT_EQ(dir.newest()->step(), 4);
  });
}

TEST_P(SaverMeshTest, AFullDiskOfOneRankLeavesThePreviousCheckpoint) {
  const StopSignal ignores_sigxfsz;
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  run_in(folder / "run", [&](RunDir& dir, Mesh& mesh) {
    Saver saver(dir, GetParam());
    const int64_t rank = mesh.save->rank();
    saver.save(contents_at(2, rank), keeping(1), {});
    saver.wait();
    const auto limit_to = [&](rlim_t bytes) {
      on_first(*mesh.control, [&] {
        const rlimit limit{bytes, before.rlim_max};
        setrlimit(RLIMIT_FSIZE, &limit);
      });
    };
    CheckpointContents large = contents_at(4, rank);
    if (rank == 2) large.optimizer.push_back(whole_piece("exp_avg", "v", torch::ones({9000})));
    limit_to(20'000);
    const std::string message = error_of_save(saver, large, kExitCannotWrite);
    limit_to(before.rlim_cur);
    EXPECT_EQ(message, checkpoint_folder(dir.path(), 4) +
                           ".partial/optimizer-00003-of-00003.safetensors: cannot write: File too "
                           "large (rank 2)");
    EXPECT_EQ(list_directory(dir.file("checkpoints")), std::vector<std::string>{"step-00000002"});
    mesh.control->barrier();
    saver.save(large, keeping(1), {});
    saver.wait();
    EXPECT_EQ(dir.newest()->step(), 4);
  });
}

// What the training does meanwhile, and where it finds out that a save is over, are the same on
// all ranks.
TEST(SaverMeshAsyncTest, TheTrainingGoesOnBesideASave) {
  const TempFolder folder;
  run_in(folder / "run", [&](RunDir& dir, Mesh& mesh) {
    Saver saver(dir, true);
    for (const int64_t step : {1, 2, 3}) {
      saver.save(contents_at(step, mesh.save->rank(), 10'000), keeping(3), {});
      int64_t steps = 0;
      for (bool busy = true; busy; busy = saver.busy_anywhere()) {
        Tensor sum = torch::full({5}, static_cast<double>(mesh.world->rank()));
        mesh.world->all_reduce(sum, Reduction::kSum)->wait();
        EXPECT_TRUE(sum.equal(torch::full({5}, 3.0)));
        ++steps;
      }
      expect_agreed(*mesh.control, std::to_string(steps));
      EXPECT_FALSE(saver.busy());
      saver.wait();
      EXPECT_EQ(saver.take_report()->step, step);
    }
  });
}

TEST(SaverMeshAsyncTest, DestroyingItFinishesWhatIsInFlight) {
  const TempFolder folder;
  run_in(folder / "run", [&](RunDir& dir, Mesh& mesh) {
    Saver(dir, true).save(contents_at(5, mesh.save->rank()), keeping(3), {});
    EXPECT_EQ(dir.newest()->step(), 5);
  });
}

TEST(SaverMeshAsyncTest, WritesTheSameBytesAsWithoutAThread) {
  const TempFolder folder;
  for (const bool async : {false, true}) {
    run_in(folder / (async ? "async" : "sync"), [&](RunDir& dir, Mesh& mesh) {
      Saver(dir, async).save(contents_at(3, mesh.save->rank()), keeping(3), {});
    });
  }
  EXPECT_EQ(bytes_of_folder(checkpoint_folder(folder / "sync", 3)),
            bytes_of_folder(checkpoint_folder(folder / "async", 3)));
}

}  // namespace
}  // namespace tandem
