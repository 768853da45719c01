#include "nn/batch.h"

#include <gmock/gmock.h>

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
