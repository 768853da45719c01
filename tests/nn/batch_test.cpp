#include "nn/batch.h"

#include <gmock/gmock.h>

#include <cmath>

#include "tests/nn/helpers.h"

namespace tandem {
namespace {

Row row_of(std::vector<int64_t> tokens, std::vector<int64_t> targets, std::vector<int32_t> segment,
           int64_t sample) {
  return {std::move(tokens), std::move(targets), std::move(segment), sample};
}

TEST(BatchTest, HoldsTheRows) {
  const auto batch =
      make_batch({row_of({5, 6, 7}, {6, 7, kIgnored}, {0, 0, 1}, 40),
                  row_of({8, 9, 0}, {9, kIgnored, kIgnored}, {0, 0, -1}, 1000000007)},
                 torch::kCPU);
  EXPECT_TRUE(
      torch::equal(batch.tokens, torch::tensor({5, 6, 7, 8, 9, 0}, torch::kInt64).view({2, 3})));
  EXPECT_TRUE(torch::equal(batch.targets,
                           torch::tensor({6, 7, -100, 9, -100, -100}, torch::kInt64).view({2, 3})));
  EXPECT_TRUE(
      torch::equal(batch.segment, torch::tensor({0, 0, 1, 0, 0, -1}, torch::kInt32).view({2, 3})));
  EXPECT_EQ(batch.segment.scalar_type(), torch::kInt32);
  EXPECT_TRUE(torch::equal(batch.samples, torch::tensor({40, 1000000007}, torch::kInt64)));
  EXPECT_FALSE(batch.weights.defined());
  EXPECT_EQ(batch.total_weight, 3);
}

TEST(BatchTest, RowsOfOneDocumentHaveNoSegments) {
  const auto whole = row_of({5, 6}, {6, 7}, {0, 0}, 0), other = row_of({5, 6}, {6, 7}, {3, 3}, 1);
  EXPECT_FALSE(make_batch({whole, other}, torch::kCPU).segment.defined());
  EXPECT_TRUE(make_batch({whole, row_of({5, 0}, {6, kIgnored}, {0, -1}, 1)}, torch::kCPU)
                  .segment.defined());
  EXPECT_TRUE(make_batch({row_of({0, 0}, {kIgnored, kIgnored}, {-1, -1}, 1)}, torch::kCPU)
                  .segment.defined());
}

TEST(BatchTest, PositionsCountFromTheDocumentsStart) {
  Batch batch;
  batch.tokens = torch::zeros({2, 7}, torch::kInt64);
  EXPECT_TRUE(torch::equal(positions_of(batch), torch::arange(7).repeat({2, 1})));
  batch.segment =
      torch::tensor({0, 0, 0, 1, 1, 2, -1, 4, 5, 5, 5, 5, -1, -1}, torch::kInt32).view({2, 7});
  const auto expected =
      torch::tensor({0, 1, 2, 0, 1, 0, 0, 0, 0, 1, 2, 3, 0, 1}, torch::kInt64).view({2, 7});
  EXPECT_TRUE(torch::equal(positions_of(batch), expected));
}

TEST(BatchTest, OneColumn) {
  const auto batch = make_batch({row_of({5}, {kIgnored}, {-1}, 0)}, torch::kCPU);
  EXPECT_TRUE(torch::equal(positions_of(batch), torch::zeros({1, 1}, torch::kInt64)));
  EXPECT_EQ(batch.total_weight, 0);
}

Row of_targets(std::vector<int64_t> targets, std::vector<float> weights = {}) {
  const size_t n = targets.size();
  return {std::vector<int64_t>(n, 1), std::move(targets), std::vector<int32_t>(n, 0), 0,
          std::move(weights)};
}

Tensor integers(const std::vector<int64_t>& values, int64_t rows) {
  return torch::tensor(values, torch::kInt64).view({rows, -1});
}

TEST(BatchTest, WeightsAreThoseOfScoredTargets) {
  const auto batch = make_batch({of_targets({6, 7, kIgnored, 9, 10}, {0.5f, 0, 4, 2, 0}),
                                 of_targets({6, kIgnored, 8, 9, 10})},
                                torch::kCPU);
  EXPECT_TRUE(
      torch::equal(batch.targets, integers({6, -100, -100, 9, -100, 6, -100, 8, 9, 10}, 2)));
  EXPECT_TRUE(torch::equal(
      batch.weights,
      torch::tensor({0.5, 0., 0., 2., 0., 1., 0., 1., 1., 1.}).to(torch::kFloat32).view({2, 5})));
  EXPECT_EQ(batch.total_weight, 6.5);
}

TEST(BatchTest, NamesTheColumnsOfFewScoredTargets) {
  const int64_t no = kIgnored;
  const auto batch = make_batch(
      {of_targets({no, no, 7, no, 9, no, no, 4}),  // three
       of_targets({no, no, no, no, no, no, no, no}), of_targets({1, no, no, no, no, no, no, 4})},
      torch::kCPU);
  // all scored ones, and first others where there are fewer than three
  EXPECT_TRUE(torch::equal(batch.scored, integers({2, 4, 7, 0, 1, 2, 0, 1, 7}, 3)));
}

TEST(BatchTest, ManyScoredTargetsNeedNoColumns) {
  const int64_t no = kIgnored;
  EXPECT_FALSE(make_batch({of_targets({1, 2, 3, 4})}, torch::kCPU).scored.defined());
  const auto fewer = of_targets({1, no, no, no}), three = of_targets({1, no, 3, 4});
  EXPECT_TRUE(torch::equal(make_batch({fewer, three}, torch::kCPU).scored,
                           integers({0, 1, 2, 0, 2, 3}, 2)));  // three quarters at most
  EXPECT_FALSE(make_batch({of_targets({1, no, 3, 4, 5})}, torch::kCPU).scored.defined());
  const auto weighed = make_batch({of_targets({1, 2, 3, 4}, {0, 0, 0, 1})}, torch::kCPU);
  EXPECT_TRUE(torch::equal(weighed.scored, integers({3}, 1)));
  const auto none = make_batch({of_targets({no, no, no, no})}, torch::kCPU);
  EXPECT_TRUE(torch::equal(none.scored, integers({0}, 1)));
  EXPECT_EQ(none.total_weight, 0);
}

TEST(BatchTest, WeightsThatMakeNoSenseAreAnError) {
  const auto error_of = [](const Row& row) -> std::string {
    try {
      make_batch({row}, torch::kCPU);
    } catch (const c10::Error& error) {
      return error.what_without_backtrace();
    }
    return "nothing was thrown";
  };
  EXPECT_THAT(error_of(of_targets({1, 2}, {1, -0.5f})),
              testing::HasSubstr("make_batch: a target weighs -0.5, expected at least 0"));
  EXPECT_THAT(error_of(of_targets({1, 2}, {1, NAN})),
              testing::HasSubstr("make_batch: a target weighs nan, expected at least 0"));
  EXPECT_THAT(error_of(of_targets({1, 2}, {1})),
              testing::HasSubstr("make_batch: a row has 1 weights, expected 2 or none"));
}

TEST(BatchTest, PaddingIsNoToken) {
  try {
    make_batch({row_of({5, 6, 7}, {6, 7, 8}, {0, 0, 0}, 0),
                row_of({5, 6, kPadding}, {6, kIgnored, kIgnored}, {0, 0, -1}, 1)},
               torch::kCPU);
    FAIL();
  } catch (const c10::Error& error) {
    EXPECT_STREQ(error.what_without_backtrace(),
                 "make_batch: token -1 at column 2, expected an id >= 0; padding has token 0 and "
                 "segment -1");
  }
}

TEST(BatchTest, RowsOfDifferentLengthsAreAnError) {
  try {
    make_batch({row_of({5, 6}, {6, 7}, {0, 0}, 0), row_of({5}, {6}, {0}, 1)}, torch::kCPU);
    FAIL();
  } catch (const c10::Error& error) {
    EXPECT_THAT(error.what_without_backtrace(),
                testing::HasSubstr(
                    "make_batch: a row has 1 tokens, 1 targets and 1 segments, expected 2 each"));
  }
  EXPECT_THROW(make_batch({}, torch::kCPU), c10::Error);
}

}  // namespace
}  // namespace tandem
