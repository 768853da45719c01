#include "train/tree_sum.h"

#include <gtest/gtest.h>

#include "tests/comm/thread_ranks.h"
#include "tests/nn/helpers.h"

namespace tandem {
namespace {

Tensor leaf(int64_t i) {
  auto generator = seeded(static_cast<uint64_t>(i) + 1);
  return torch::randn({7}, generator, torch::kFloat32) * std::pow(10.0, static_cast<double>(i % 5));
}

/// The tree as its header describes it.
Tensor tree(int64_t begin, int64_t size, int64_t leaves) {
  if (size == 1) return leaf(begin);
  const int64_t half = size / 2;
  const Tensor left = tree(begin, half, leaves);
  return begin + half < leaves ? left + tree(begin + half, half, leaves) : left;
}

TEST(TreeSumTest, RoundsAsTheTreeDoesOnAnyNumberOfRanks) {
  for (const int64_t leaves : {1, 2, 5, 8, 11, 13}) {
    int64_t size = 1;
    while (size < leaves) size *= 2;
    const Tensor expected = tree(0, size, leaves);
    for (int64_t ranks = 1; ranks <= std::min<int64_t>(leaves, 6); ++ranks) {
      run_ranks(ranks, [&](Communicator& group) {
        TreeSum sum(leaves);
        for (int64_t i = group.rank() * leaves / ranks; i < (group.rank() + 1) * leaves / ranks; ++i) sum.add(i, {leaf(i), -leaf(i)});
        Tensors out = {torch::empty({7}), torch::empty({7})};
        sum.finish(group, out);
        EXPECT_TRUE(torch::equal(out[0], expected)) << leaves << " leaves, " << ranks << " ranks";
        EXPECT_TRUE(torch::equal(out[1], -expected));
      });
    }
  }
}

}  // namespace
}  // namespace tandem
