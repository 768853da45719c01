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

TEST(ForwardContextTest, AtSomeColumnsOfEachRow) {
  auto context = context_of(2, 7, 5);
  context.segment = torch::tensor({0, 1, 1, 2, -1, 0, 0, 0, 2, 3}, torch::kInt32).view({2, 5});
  context.samples = torch::tensor({40, 41}, torch::kInt64);
  context.wanted = torch::tensor({0, 3, 2, 4}, torch::kInt64).view({2, 2});
  context.training = true;
  const auto there = context.at(context.wanted);
  EXPECT_TRUE(
      torch::equal(there.positions, torch::tensor({7, 10, 9, 11}, torch::kInt64).view({2, 2})));
  EXPECT_TRUE(torch::equal(there.segment, torch::tensor({0, 2, 0, 3}, torch::kInt32).view({2, 2})));
  EXPECT_TRUE(torch::equal(there.columns, context.wanted));
  EXPECT_FALSE(there.wanted.defined());  // all that is left is wanted
  EXPECT_FALSE(there.lengths.defined());
  EXPECT_TRUE(torch::equal(there.samples, context.samples));
  EXPECT_TRUE(there.training);
  EXPECT_FALSE(context.columns.defined());
  EXPECT_THROW(ForwardContext().at(context.wanted), c10::Error);
}

TEST(ForwardContextTest, SegmentsOfKeysGoAlong) {
  auto context = context_of(2, 7, 3);
  context.key_segment = torch::tensor({-1, 0, 1, 2, 3, -1}, torch::kInt32).view({2, 3});
  const auto columns = torch::tensor({0, 2, 1, 2}, torch::kInt64).view({2, 2});
  EXPECT_TRUE(torch::equal(context.at(columns).key_segment,
                           torch::tensor({-1, 1, 3, -1}, torch::kInt32).view({2, 2})));
  EXPECT_TRUE(torch::equal(context.at_last().key_segment,
                           torch::tensor({1, -1}, torch::kInt32).view({2, 1})));
  EXPECT_FALSE(context_of(2, 7, 3).at(columns).key_segment.defined());
}

TEST(ForwardContextTest, ARowOfNoTokensGivesItsFirstColumn) {
  const auto x = torch::arange(2 * 5 * 3, torch::kFloat64).view({2, 5, 3});
  auto context = context_of(2, 7, 5);
  context.lengths = torch::tensor({0, 5}, torch::kInt64);
  expect_close(last_of_each_row(x, context), torch::stack({x[0][0], x[1][4]}).unsqueeze(1), 0);
  EXPECT_TRUE(torch::equal(context.at_last().positions,
                           torch::tensor({7, 11}, torch::kInt64).view({2, 1})));
}

TEST(ForwardContextTest, ColumnsOfMatricesAndVectors) {
  const auto columns = torch::tensor({4, 0, 1, 1}, torch::kInt64).view({2, 2});
  const auto flat = torch::arange(10).view({2, 5});
  EXPECT_TRUE(torch::equal(at_columns(flat, columns),
                           torch::tensor({4, 0, 6, 6}, torch::kInt64).view({2, 2})));
  const auto x = torch::arange(30, torch::kFloat64).view({2, 5, 3}).requires_grad_();
  const auto some = at_columns(x, columns);
  expect_close(
      some, torch::stack({torch::stack({x[0][4], x[0][0]}), torch::stack({x[1][1], x[1][1]})}), 0);
  some.sum().backward();
  auto expected = torch::zeros({2, 5, 3});
  expected[0][4].fill_(1);
  expected[0][0].fill_(1);
  expected[1][1].fill_(2);
  expect_close(x.grad(), expected, 0);
}

TEST(StateTest, PositionsContinueTheLengths) {
  const auto positions = positions_after(torch::tensor({0, 4}, torch::kInt64), 3);
  EXPECT_TRUE(
      torch::equal(positions, torch::tensor({0, 1, 2, 4, 5, 6}, torch::kInt64).view({2, 3})));
  EXPECT_EQ(positions_after(torch::tensor({3}, torch::kInt64), 0).numel(), 0);
}

}  // namespace
}  // namespace tandem
