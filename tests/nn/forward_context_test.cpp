#include "nn/forward_context.h"

#include "nn/state.h"
#include "tests/nn/helpers.h"

namespace tandem {
namespace {

TEST(ForwardContextTest, TheLastValidTokenOfEachRow) {
  const auto x = torch::arange(2 * 5 * 3, torch::kFloat64).view({2, 5, 3});
  auto context = context_of(2, 7, 5);
  expect_close(last_of_each_row(x, context), x.narrow(1, 4, 1), 0);
  context.lengths = torch::tensor({2, 5}, torch::kInt64);
  expect_close(last_of_each_row(x, context), torch::stack({x[0][1], x[1][4]}).unsqueeze(1), 0);
}

TEST(ForwardContextTest, ItsGradientReachesThatTokenOnly) {
  auto context = context_of(2, 0, 5);
  context.lengths = torch::tensor({1, 4}, torch::kInt64);
  const auto x = torch::zeros({2, 5, 3}).requires_grad_();
  last_of_each_row(x, context).sum().backward();
  auto expected = torch::zeros({2, 5, 3});
  expected[0][0].fill_(1);
  expected[1][3].fill_(1);
  expect_close(x.grad(), expected, 0);
}

TEST(ForwardContextTest, AtLastIsAContextOfOneToken) {
  auto context = context_of(2, 7, 5);
  context.lengths = torch::tensor({2, 5}, torch::kInt64);
  context.segment = torch::tensor({0, 1, -1, -1, -1, 0, 0, 0, 2, 3}, torch::kInt32).view({2, 5});
  context.training = true;
  context.random = RandomStream(3);
  const auto last = context.at_last();
  EXPECT_TRUE(torch::equal(last.positions, torch::tensor({8, 11}, torch::kInt64).unsqueeze(1)));
  EXPECT_TRUE(torch::equal(last.segment, torch::tensor({1, 3}, torch::kInt32).unsqueeze(1)));
  EXPECT_TRUE(torch::equal(last.lengths, torch::ones({2}, torch::kInt64)));
  EXPECT_TRUE(last.training);
  EXPECT_EQ(last.random.key(), context.random.key());
  context.segment = Tensor();
  context.lengths = Tensor();
  const auto last_column = context.at_last();
  EXPECT_TRUE(torch::equal(last_column.positions, torch::full({2, 1}, 11, torch::kInt64)));
  EXPECT_FALSE(last_column.segment.defined());
}

TEST(StateTest, PositionsContinueTheLengths) {
  const auto positions = positions_after(torch::tensor({0, 4}, torch::kInt64), 3);
  EXPECT_TRUE(
      torch::equal(positions, torch::tensor({0, 1, 2, 4, 5, 6}, torch::kInt64).view({2, 3})));
  EXPECT_EQ(positions_after(torch::tensor({3}, torch::kInt64), 0).numel(), 0);
}

}  // namespace
}  // namespace tandem
