#include "comm/mesh.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <filesystem>
#include <fstream>
#include <thread>
#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include "comm/process_group.h"
#include "tests/comm/ranks.h"
#include "tests/comm/thread_ranks.h"

namespace tandem {
namespace {

using testing::Each;
using testing::HasSubstr;

constexpr std::chrono::seconds kLongest(60);

Launch launched() { return find_launch({}, process_environment); }
/// Ranks that all have different samples.
Mesh data_mesh(const Launch& launch, const MeshOptions& options = MeshOptions{}) {
  return make_mesh(launch, {.data = launch.world, .replicate = launch.world}, options);
}
Mesh data_mesh(const MeshOptions& options = MeshOptions{}) {
  return data_mesh(launched(), options);
}
std::string environment(const char* name) { return process_environment(name).value_or(""); }

TEST(MeshTest, AWorldOfOneMeetsNobody) {
  const Mesh mesh = make_mesh(Launch{}, MeshShape{}, MeshOptions{});
  EXPECT_EQ(mesh.world->size(), 1);
  EXPECT_EQ(mesh.meeting, nullptr);
}

TEST(MeshTest, SaysWhichShapesCannotBe) {
  const MeshShape shape{.data = 4, .sequence = 1, .tensor = 2, .replicate = 2};
  EXPECT_EQ(shape.str(), "data 4 (replicate 2, shard 2), tensor 2, sequence 1");
  const auto refusal = [](int64_t world, const MeshShape& given) {
    Launch launch;
    launch.world = world;
    return error_of([&] { make_mesh(launch, given, MeshOptions{}); }, kExitUsage);
  };
  EXPECT_EQ(refusal(4, shape),
            "a mesh of data 4, tensor 2, sequence 1 has 8 ranks, the launch has 4");
  EXPECT_EQ(refusal(4, {.data = 4, .replicate = 3}),
            "a mesh with replicate 3, which does not divide data 4 * sequence 1");
}

/// What `group` makes of tensors that differ by rank.
std::vector<torch::Tensor> results(Communicator& group) {
  const int64_t n = group.size();
  const auto generator = at::detail::createCPUGenerator(static_cast<uint64_t>(7 + group.rank()));
  const auto in = torch::randn({n, 5}, generator, torch::kFloat64);
  auto sum = in.clone(), most = in.clone(), told = in.clone();
  auto part = torch::empty({5}, torch::kFloat64), all = torch::empty({n, n, 5}, torch::kFloat64);
  auto swapped = torch::empty_like(in), above = torch::empty_like(in),
       below = torch::empty_like(in);
  group.all_reduce(sum, Reduction::kSum)->wait();
  group.all_reduce(most, Reduction::kMax)->wait();
  group.broadcast(told, n - 1)->wait();
  group.reduce_scatter(part, in, Reduction::kSum)->wait();
  group.all_gather(all, in)->wait();
  group.all_to_all(swapped, in)->wait();
  group.shift(above, in)->wait();
  group.shift_back(below, in)->wait();
  group.barrier();
  return {sum, most, told, part, all, swapped, above, below};
}

int same_as_threads() {
  Mesh mesh = data_mesh();
  mesh.traffic->reset();
  const auto found = results(*mesh.data);
  bool same = true;
  run_mesh({.data = mesh.data->size(), .replicate = mesh.data->size()},
           [&](Mesh& threads, int64_t rank) {
             const auto expected = results(*threads.data);
             if (rank != mesh.data->rank()) return;
             for (size_t i = 0; i < found.size(); ++i)
               same = same && torch::allclose(found[i], expected[i], 1e-14, 1e-14);
             same = same && threads.traffic->bytes() == mesh.traffic->bytes();
           });
  RANK_CHECK(same);
  mesh.finish();
  return 0;
}
const bool kSame = register_rank_body("same_as_threads", same_as_threads);

TEST(MeshTest, ProcessesAndThreadsAgree) {
  Ranks ranks("same_as_threads", 3);
  EXPECT_THAT(ranks.wait(kLongest), Each(0)) << ranks.errors(0) << ranks.errors(1);
}

int saving_thread() {
  Mesh mesh = data_mesh();
  const auto sums = [](Communicator& group) {
    for (int i = 0; i < 50; ++i) {
      auto x = torch::full({100 + i}, static_cast<double>(i), torch::kFloat64);
      group.all_reduce(x, Reduction::kSum)->wait();
      if (x.min().item<double>() != i * group.size() || x.max().item<double>() != i * group.size())
        return false;
    }
    return true;
  };
  bool saved = false;
  std::thread saving([&] { saved = sums(*mesh.save); });
  const bool trained = sums(*mesh.data);
  saving.join();
  RANK_CHECK(saved && trained);
  mesh.finish();
  return 0;
}
const bool kSaving = register_rank_body("saving_thread", saving_thread);

TEST(MeshTest, AThreadSavesBesideTheTraining) {
  Ranks ranks("saving_thread", 3);
  EXPECT_THAT(ranks.wait(kLongest), Each(0)) << ranks.errors(0);
}

/// What reaches Gloo wrongly ends the process without a word.
int own_mistakes() {
  Mesh mesh = data_mesh();
  Communicator& group = *mesh.data;
  const auto refused = [](const auto& call) {
    try {
      call();
    } catch (const c10::Error&) {
      return true;
    } catch (const std::exception&) {
    }
    return false;
  };
  auto x = torch::ones({4}), small = torch::ones({3}), wide = torch::ones({8}, torch::kFloat64);
  auto turned = torch::ones({2, 2}).t(), meta = torch::ones({4}, torch::kMeta);
  RANK_CHECK(refused([&] { group.shift(small, x); }));
  RANK_CHECK(refused([&] { group.shift_back(x, wide.slice(0, 0, 4)); }));
  RANK_CHECK(refused([&] { group.all_gather(wide, x); }));
  RANK_CHECK(refused([&] { group.all_to_all(turned, x); }));
  RANK_CHECK(refused([&] { group.all_reduce(meta, Reduction::kSum); }));
  RANK_CHECK(refused([&] { group.broadcast(x, -1); }));
  RANK_CHECK(refused([&] { group.gather(x, x, 2); }));
  group.all_reduce(x, Reduction::kSum)->wait();  // nothing was sent before
  RANK_CHECK(x.sum().item<double>() == 8);
  mesh.finish();
  return 0;
}
const bool kMistakes = register_rank_body("own_mistakes", own_mistakes);

TEST(MeshTest, ARanksOwnMistakesAreNoLostPeers) {
  Ranks ranks("own_mistakes", 2);
  EXPECT_THAT(ranks.wait(kLongest), Each(0)) << ranks.errors(0);
}

/// Rank 1 stops for good within a loop of the operation KIND.
int stopped() {
  Mesh mesh = data_mesh();
  mesh.set_time_limit(0.5);
  auto x = torch::ones({10}), y = torch::ones({10});
  for (int64_t i = 0;; ++i) {
    if (mesh.world->rank() == 1 && i == 5) raise(SIGSTOP);
    const std::string kind = environment("KIND");
    if (kind == "shift") mesh.data->shift(y, x)->wait();
    if (kind == "shift_back") mesh.data->shift_back(y, x)->wait();
    if (kind == "all_reduce") mesh.data->all_reduce(x, Reduction::kSum)->wait();
    if (kind == "barrier") mesh.data->barrier();
  }
}
const bool kStopped = register_rank_body("stopped", stopped);

class StoppedSlowTest : public testing::TestWithParam<const char*> {};

TEST_P(StoppedSlowTest, ARankEndsTheOthersWithinTheTimeLimit) {
  Ranks ranks("stopped", 3, {{"KIND", GetParam()}});
  for (const int64_t r : {0, 2}) {
    EXPECT_EQ(ranks[r].wait(kLongest), 75) << ranks.errors(r);
    EXPECT_THAT(ranks.errors(r), HasSubstr("data." + std::string(GetParam()) + " number"));
  }
}
INSTANTIATE_TEST_SUITE_P(Kinds, StoppedSlowTest,
                         testing::Values("shift", "shift_back", "all_reduce", "barrier"),
                         [](const auto& kind) { return std::string(kind.param); });

int throws() {
  Mesh mesh = data_mesh();
  auto x = torch::ones({10});
  if (mesh.world->rank() == 1) {
    const auto work = mesh.data->all_reduce(x, Reduction::kSum);
    throw std::runtime_error("has had enough");
  }
  mesh.control->barrier();
  return 0;
}
const bool kThrows = register_rank_body("throws", throws);

// Its operation would end when the others come to it; they wait for it elsewhere.
TEST(MeshTest, ARankThatThrowsLeavesTheOthers) {
  Ranks ranks("throws", 3);
  EXPECT_EQ(ranks.wait(kLongest), (std::vector<int>{75, 1, 75}));
  EXPECT_THAT(ranks.errors(1), testing::EndsWith("throws: has had enough\n"));
}

int other_world() {
  Launch launch = launched();
  if (std::to_string(launch.rank) == environment("ODD")) launch.world = 4;
  data_mesh(launch);
  return 0;
}
const bool kOtherWorld = register_rank_body("other_world", other_world);

class OddOneSlowTest : public testing::TestWithParam<int> {};

TEST_P(OddOneSlowTest, AnotherWorldSizeIsNamedOnAll) {
  const int odd = GetParam();
  Ranks ranks("other_world", 3, {{"ODD", std::to_string(odd)}});
  EXPECT_THAT(ranks.wait(kLongest), Each(2));
  for (int64_t r = 0; r < 3; ++r) {
    EXPECT_THAT(ranks.errors(r), testing::StartsWith("rank " + std::to_string(odd) + " (")) << r;
    EXPECT_THAT(ranks.errors(r), HasSubstr("was started with another world size than rank " +
                                           std::to_string(odd == 0 ? 1 : 0)));
    EXPECT_THAT(ranks.errors(r), testing::EndsWith(": 4, not 3\n"));
  }
}
INSTANTIATE_TEST_SUITE_P(Ranks, OddOneSlowTest, testing::Values(0, 2));

/// Two ranks of one job and process 2, which is one of them a second time. Whoever is refused
/// leaves a file.
int twice() {
  Launch launch = launched();
  const std::string file = environment("FOLDER") + "/refused";
  if (launch.rank == 2) launch.rank = std::stoll(environment("TWICE"));
  launch.world = 2;
  try {
    MeshOptions options;
    options.fingerprint = "two\nlines";
    Mesh mesh = data_mesh(launch, options);
    for (int i = 0; i < 2000 && !std::filesystem::exists(file); ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    mesh.finish();
  } catch (const UserError&) {
    std::ofstream(file) << "refused";
    throw;
  }
  return 0;
}
const bool kTwice = register_rank_body("twice", twice);

class TwiceSlowTest : public testing::TestWithParam<int> {};

TEST_P(TwiceSlowTest, TheOneThatCameLaterIsToldAndTheJobGoesOn) {
  const TempFolder folder;
  Ranks ranks("twice", 3, {{"TWICE", std::to_string(GetParam())}, {"FOLDER", folder / "."}});
  const auto codes = ranks.wait(kLongest);
  EXPECT_EQ(codes[static_cast<size_t>(1 - GetParam())], 0);
  const int64_t refused = codes[2] == 2 ? 2 : GetParam();
  EXPECT_THAT(codes, testing::UnorderedElementsAre(0, 0, 2))
      << ranks.errors(0) << ranks.errors(1) << ranks.errors(2);
  EXPECT_THAT(ranks.errors(refused),
              HasSubstr(GetParam() == 0 ? "Address already in use; is another job there?"
                                        : ") came while "))
      << ranks.errors(refused);
}
INSTANTIATE_TEST_SUITE_P(Ranks, TwiceSlowTest, testing::Values(0, 1));

}  // namespace
}  // namespace tandem
