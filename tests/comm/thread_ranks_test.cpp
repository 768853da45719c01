#include "tests/comm/thread_ranks.h"

namespace tandem {
namespace {

TEST(ThreadRanksTest, GroupsOfAMeshDivideItsRanks) {
  const MeshShape shape{.data = 4, .sequence = 2, .tensor = 2, .replicate = 2};
  run_mesh(shape, [&](Mesh& mesh, int64_t rank) {
    const auto sum = [&](Communicator& group) {
      auto value = torch::full({1}, static_cast<double>(rank), torch::kFloat64);
      group.all_reduce(value, Reduction::kSum)->wait();
      return value.item<double>();
    };
    const double r = static_cast<double>(rank), tensor = static_cast<double>(rank % 2), sequence = static_cast<double>(rank / 2 % 2);
    EXPECT_EQ(sum(*mesh.tensor), 2 * (r - tensor) + 1);
    EXPECT_EQ(sum(*mesh.sequence), 2 * (r - 2 * sequence) + 2);
    EXPECT_EQ(sum(*mesh.data), 4 * (2 * sequence + tensor) + 24);
    EXPECT_EQ(sum(*mesh.gradient), 8 * tensor + 56);
    EXPECT_EQ(mesh.shard->size(), 4);
    EXPECT_EQ(mesh.replica->size(), 2);
    EXPECT_EQ(mesh.gradient->rank(), mesh.replica->rank() * 4 + mesh.shard->rank());
    EXPECT_EQ(sum(*mesh.world), 120);
  });
}

TEST(ThreadRanksTest, CollectivesDoWhatTheirNamesSay) {
  run_ranks(3, [](Communicator& group) {
    const auto r = static_cast<double>(group.rank());
    const auto in = torch::tensor({r, 10 + r, 20 + r});
    auto out = torch::empty({3}), part = torch::empty({1}), all = torch::empty({9});
    group.all_to_all(out, in)->wait();
    EXPECT_TRUE(torch::equal(out, 10 * r + torch::arange(3.0)));
    group.reduce_scatter(part, in, Reduction::kMax)->wait();
    EXPECT_EQ(part.item<double>(), 10 * r + 2);
    group.all_gather(all, in)->wait();
    EXPECT_EQ(all[3].item<double>(), 1);
    group.shift(out, in)->wait();
    EXPECT_EQ(out[0].item<double>(), group.rank() == 0 ? 0 : r - 1);
    group.gather(all, in, 1)->wait();
    auto from = torch::full({1}, r);
    group.broadcast(from, 2)->wait();
    EXPECT_EQ(from.item<double>(), 2);
  });
}

TEST(ThreadRanksTest, OneRanksFailureIsTheTests) {
  EXPECT_THROW(run_ranks(3,
                         [](Communicator& group) {
                           if (group.rank() == 1) throw std::logic_error("mine");
                           auto x = torch::ones({1});
                           group.all_reduce(x, Reduction::kSum)->wait();
                         }),
               std::logic_error);
}

}  // namespace
}  // namespace tandem
