#include "comm/communicator.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "comm/mesh.h"

namespace tandem {
namespace {

TEST(SingleCommunicatorTest, ResultsAreTheInputs) {
  const auto group = make_single_communicator("data");
  EXPECT_EQ(group->rank(), 0);
  EXPECT_EQ(group->size(), 1);
  const auto in = torch::arange(6.0).view({2, 3});
  auto reduced = in.clone();
  group->all_reduce(reduced, Reduction::kSum)->wait();
  EXPECT_TRUE(torch::equal(reduced, in));
  for (auto collective : {&Communicator::all_gather, &Communicator::all_to_all}) {
    auto out = torch::empty_like(in);
    (group.get()->*collective)(out, in)->wait();
    EXPECT_TRUE(torch::equal(out, in));
  }
  auto scattered = torch::empty_like(in);
  group->reduce_scatter(scattered, in, Reduction::kMax)->wait();
  EXPECT_TRUE(torch::equal(scattered, in));
}

TEST(SingleCommunicatorTest, NothingComesFromARankBeforeTheFirst) {
  const auto group = make_single_communicator("sequence");
  auto out = torch::ones({2, 3});
  group->shift(out, torch::ones({2, 3}))->wait();
  EXPECT_TRUE(torch::equal(out, torch::zeros({2, 3})));
}

TEST(SingleCommunicatorTest, RefusesEmptyTensorsAndOtherRoots) {
  const auto group = make_single_communicator("data");
  auto empty = torch::empty({0});
  EXPECT_THROW(group->all_reduce(empty, Reduction::kSum), c10::Error);
  auto tensor = torch::ones({1});
  EXPECT_THROW(group->broadcast(tensor, 1), c10::Error);
}

TEST(MeshTest, OneProcessIsAMeshOfOnes) {
  const Mesh mesh = single_process_mesh();
  for (const auto* group : {&mesh.data, &mesh.tensor, &mesh.sequence, &mesh.gradient, &mesh.world, &mesh.control, &mesh.save}) {
    EXPECT_EQ((*group)->size(), 1);
  }
  EXPECT_EQ(mesh.gradient->name(), "gradient");
}

}  // namespace
}  // namespace tandem
