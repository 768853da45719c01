#include "comm/process_group.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include "comm/launch.h"
#include "comm/mesh.h"
#include "tests/comm/ranks.h"

namespace tandem {
namespace {

using testing::Each;
using testing::HasSubstr;

Launch launched() { return find_launch({}, process_environment); }
Mesh data_mesh(const MeshOptions& options = MeshOptions{}) {
  const Launch launch = launched();
  return make_mesh(launch, {.data = launch.world, .replicate = launch.world}, options);
}

/// Every operation against arithmetic, in each type that travels.
int every_operation() {
  MeshOptions options;
  options.checked = std::getenv("CHECKED") != nullptr;
  Mesh mesh = data_mesh(options);
  Communicator& group = *mesh.data;
  const int64_t n = group.size(), r = group.rank();
  for (const auto dtype : {torch::kFloat64, torch::kFloat32, torch::kBFloat16, torch::kHalf, torch::kInt64, torch::kInt32, torch::kUInt8}) {
    const auto own = [&](int64_t rank, int64_t elements) { return (torch::arange(elements) + 10 * rank).to(dtype); };
    const auto stacked = [&](int64_t elements) {
      std::vector<torch::Tensor> rows;
      for (int64_t q = 0; q < n; ++q) rows.push_back(own(q, elements));
      return torch::stack(rows);  // [n, elements]
    };
    auto sum = own(r, 5), most = own(r, 5), least = own(r, 5);
    group.all_reduce(sum, Reduction::kSum)->wait();
    group.all_reduce(most, Reduction::kMax)->wait();
    group.all_reduce(least, Reduction::kMin)->wait();
    RANK_CHECK(torch::equal(sum, stacked(5).sum(0).to(dtype)));
    RANK_CHECK(torch::equal(most, own(n - 1, 5)));
    RANK_CHECK(torch::equal(least, own(0, 5)));

    auto part = torch::empty({3}, dtype);
    group.reduce_scatter(part, own(r, 3 * n), Reduction::kSum)->wait();
    RANK_CHECK(torch::equal(part, stacked(3 * n).sum(0).slice(0, 3 * r, 3 * r + 3).to(dtype)));
    auto all = torch::empty({n, 3}, dtype);
    group.all_gather(all, own(r, 3))->wait();
    RANK_CHECK(torch::equal(all, stacked(3)));
    all.zero_();
    all[r].copy_(own(r, 3));
    group.all_gather(all, all[r])->wait();  // out of its own place
    RANK_CHECK(torch::equal(all, stacked(3)));

    auto told = own(r, 4);
    group.broadcast(told, n - 1)->wait();
    RANK_CHECK(torch::equal(told, own(n - 1, 4)));
    auto swapped = torch::empty({n, 2}, dtype);
    group.all_to_all(swapped, own(r, 2 * n).view({n, 2}))->wait();
    RANK_CHECK(torch::equal(swapped, stacked(2 * n).slice(1, 2 * r, 2 * r + 2)));
    auto gathered = torch::empty({n, 3}, dtype);
    group.gather(gathered, own(r, 3), 0)->wait();
    RANK_CHECK(r != 0 || torch::equal(gathered, stacked(3)));
    auto above = torch::empty({2}, dtype), below = torch::empty({2}, dtype);
    group.shift(above, own(r, 2))->wait();
    RANK_CHECK(torch::equal(above, r > 0 ? own(r - 1, 2) : torch::zeros({2}, dtype)));
    group.shift_back(below, own(r, 2))->wait();
    RANK_CHECK(torch::equal(below, r + 1 < n ? own(r + 1, 2) : torch::zeros({2}, dtype)));
  }
  // Under way at the same time, waited for in another order.
  auto first = torch::ones({1000}), second = torch::full({10}, 2.0);
  auto first_work = group.all_reduce(first, Reduction::kSum), second_work = group.all_reduce(second, Reduction::kSum);
  second_work->wait();
  first_work->wait();
  RANK_CHECK(first.sum().item<double>() == 1000.0 * static_cast<double>(n) && second[0].item<double>() == 2.0 * static_cast<double>(n));
  mesh.traffic->reset();
  group.all_reduce(first, Reduction::kSum)->wait();
  RANK_CHECK(mesh.traffic->bytes().at("data.all_reduce") == 8000.0 * static_cast<double>(n - 1) / static_cast<double>(n));
  group.barrier();
  mesh.finish();
  return 0;
}
const bool kEvery = register_rank_body("every_operation", every_operation);

class OperationsTest : public testing::TestWithParam<int> {};

TEST_P(OperationsTest, DoWhatTheirNamesSay) {
  for (const bool checked : {false, true}) {
    Ranks ranks("every_operation", GetParam(), checked ? std::map<std::string, std::string>{{"CHECKED", "1"}} : std::map<std::string, std::string>{});
    EXPECT_THAT(ranks.wait(), Each(0)) << ranks.errors(0) << ranks.errors(1);
  }
}
INSTANTIATE_TEST_SUITE_P(Ranks, OperationsTest, testing::Values(2, 3, 4));

int groups_of_a_mesh() {
  const MeshShape shape{.data = 2, .sequence = 2, .tensor = 2, .replicate = 2};
  Mesh mesh = make_mesh(launched(), shape, MeshOptions{});
  const int64_t rank = mesh.world->rank();
  const auto ranks_of = [&](Communicator& group) {
    auto all = torch::empty({group.size()}, torch::kInt64);
    group.all_gather(all, torch::tensor({rank}))->wait();
    return std::vector<int64_t>(all.const_data_ptr<int64_t>(), all.const_data_ptr<int64_t>() + all.numel());
  };
  using Members = std::vector<int64_t>;
  const int64_t t = rank % 2, s = rank / 2 % 2, d = rank / 4;
  RANK_CHECK((ranks_of(*mesh.tensor) == Members{rank - t, rank - t + 1}));
  RANK_CHECK((ranks_of(*mesh.sequence) == Members{4 * d + t, 4 * d + 2 + t}));
  RANK_CHECK((ranks_of(*mesh.data) == Members{2 * s + t, 4 + 2 * s + t}));
  RANK_CHECK((ranks_of(*mesh.gradient) == Members{t, 2 + t, 4 + t, 6 + t}));
  RANK_CHECK((ranks_of(*mesh.shard) == Members{4 * d + t, 4 * d + 2 + t}));
  RANK_CHECK((ranks_of(*mesh.replica) == Members{2 * s + t, 4 + 2 * s + t}));
  RANK_CHECK(mesh.control->size() == 8 && mesh.save->size() == 8 && mesh.world->size() == 8);
  if (rank == 3) publish(*mesh.meeting, "key", "value");
  RANK_CHECK(lookup(*mesh.meeting, "key", 10) == "value");
  mesh.finish();
  return 0;
}
const bool kGroups = register_rank_body("groups_of_a_mesh", groups_of_a_mesh);

TEST(MeshSlowTest, EightRanksAreGroupedAsTheirShapeSays) {
  Ranks ranks("groups_of_a_mesh", 8);
  EXPECT_THAT(ranks.wait(), Each(0)) << ranks.errors(0);
}

int alone() {
  Launch launch = launched();
  MeshOptions options;
  options.limits.setup_seconds = 1;
  if (launch.rank == 1) return 0;  // does not come
  make_mesh(launch, {.data = launch.world, .replicate = launch.world}, options);
  return 0;
}
const bool kAlone = register_rank_body("alone", alone);

TEST(MeshTest, ARankThatDoesNotComeIsNamed) {
  Ranks ranks("alone", 3);
  EXPECT_EQ(ranks.wait(std::chrono::seconds(20)), (std::vector<int>{75, 0, 75}));
  EXPECT_EQ(ranks.errors(0), "rank 1 of 3 did not come within 1 s\n");
}

int other_config() {
  const Launch launch = launched();
  MeshOptions options;
  options.fingerprint = launch.rank == 2 ? "other" : "same";
  data_mesh(options);
  return 0;
}
const bool kOther = register_rank_body("other_config", other_config);

TEST(MeshTest, ARankOfAnotherConfigIsNamedOnAll) {
  Ranks ranks("other_config", 3);
  EXPECT_THAT(ranks.wait(std::chrono::seconds(20)), Each(2));
  for (int64_t r = 0; r < 3; ++r) EXPECT_THAT(ranks.errors(r), HasSubstr("was started with another config than rank 0")) << ranks.errors(r);
}

/// Rank 2 does something else than the others; which, says the environment.
int apart() {
  MeshOptions options;
  options.limits.setup_seconds = 3;
  options.checked = true;
  Mesh mesh = data_mesh(options);
  Communicator& group = *mesh.data;
  const std::string kind = std::getenv("KIND");
  const bool odd = group.rank() == 2;
  const auto is = [&](const char* name) { return odd && kind == name; };
  auto x = torch::ones({8}), y = torch::ones({8}), small = torch::ones({2}), wide = torch::empty({32}, is("gather_dtype") ? torch::kBFloat16 : torch::kFloat32);
  group.all_reduce(x, Reduction::kSum)->wait();  // all together
  if (is("numel")) x = torch::ones({4});
  if (is("dtype")) x = torch::ones({8}, torch::kFloat64);
  if (!is("skips")) group.all_reduce(x, is("reduction") ? Reduction::kMax : Reduction::kSum)->wait();
  if (is("root")) {
    group.broadcast(y, 1)->wait();
  } else if (is("operation")) {
    group.all_gather(wide, y)->wait();
  } else {
    group.broadcast(y, 0)->wait();
  }
  if (is("swaps")) {
    group.all_gather(wide, y)->wait();
    group.reduce_scatter(small, y, Reduction::kSum)->wait();
  } else {
    group.reduce_scatter(small, y, is("scatter_reduction") ? Reduction::kMin : Reduction::kSum)->wait();
    group.all_gather(wide, is("gather_dtype") ? y.to(torch::kBFloat16) : y)->wait();
  }
  if (is("twice")) group.all_reduce(x, Reduction::kSum)->wait();
  group.all_to_all(y, is("all_to_all_numel") ? torch::ones({4}) : x)->wait();
  group.gather(wide, y, is("gather_root") ? 1 : 0)->wait();
  if (is("shift_back")) {
    group.shift_back(x, y)->wait();
  } else {
    group.shift(x, y)->wait();
  }
  return 0;
}
const bool kApart = register_rank_body("apart", apart);

class ApartTest : public testing::TestWithParam<const char*> {};
using ApartSlowTest = ApartTest;

TEST_P(ApartSlowTest, IsSeenBeforeDataMovesAndTheOddRankIsNamed) {
  Ranks ranks("apart", 4, {{"KIND", GetParam()}});
  const auto codes = ranks.wait(std::chrono::seconds(30));
  if (std::string(GetParam()) == "all_to_all_numel") {  // refused by the rank itself
    EXPECT_EQ(codes[2], 1) << ranks.errors(2);
    EXPECT_EQ(codes[0], 75) << ranks.errors(0);
    return;
  }
  EXPECT_THAT(codes, Each(75)) << ranks.errors(0) << ranks.errors(2);
  for (int64_t r = 0; r < 4; ++r) EXPECT_THAT(ranks.errors(r), HasSubstr("data: ranks disagree: rank 2 (")) << ranks.errors(r);
}
INSTANTIATE_TEST_SUITE_P(Kinds, ApartSlowTest,
                         testing::Values("numel", "dtype", "skips", "reduction", "root", "operation", "swaps", "scatter_reduction", "gather_dtype", "twice",
                                         "all_to_all_numel", "gather_root", "shift_back"),
                         [](const auto& kind) { return std::string(kind.param); });

int killed() {
  Mesh mesh = data_mesh();
  auto x = torch::ones({1000});
  for (int64_t i = 0;; ++i) {
    if (mesh.world->rank() == 1 && i == 50) raise(SIGKILL);
    mesh.data->all_reduce(x, Reduction::kSum)->wait();
  }
}
const bool kKilled = register_rank_body("killed", killed);

TEST(MeshTest, AKilledRankEndsTheOthersOperations) {
  Ranks ranks("killed", 3);
  EXPECT_EQ(ranks.wait(std::chrono::seconds(20)), (std::vector<int>{75, 128 + SIGKILL, 75}));
  EXPECT_THAT(ranks.errors(0), HasSubstr("data.all_reduce number"));
}

}  // namespace
}  // namespace tandem
