#include "core/packing.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "tests/core/helpers.h"

namespace tandem {
namespace {

using testing::ElementsAre;

constexpr int64_t kNo = kIgnored;

TEST(PackingTest, ColumnTScoresTheTokenAfterIt) {
  const Row row = row_of_sequence(std::vector<int64_t>{5, 6, 7, 8}, {});
  EXPECT_THAT(row.tokens, ElementsAre(5, 6, 7));
  EXPECT_THAT(row.targets, ElementsAre(6, 7, 8));
  EXPECT_THAT(row.segment, ElementsAre(0, 0, 0));
}

TEST(PackingTest, PadsToTheMultipleAndLeavesThePrefixOut) {
  const Row row = row_of_sequence(std::vector<int64_t>{5, 6, 7, 8, 9, 10},
                                  {.multiple = 4, .unscored_prefix = 3});
  EXPECT_THAT(row.tokens, ElementsAre(5, 6, 7, 8, 9, 0, 0, 0));
  EXPECT_THAT(row.targets, ElementsAre(kNo, kNo, kNo, 9, 10, kNo, kNo, kNo));
  EXPECT_THAT(row.segment, ElementsAre(0, 0, 0, 0, 0, -1, -1, -1));
}

TEST(PackingTest, ShortSequences) {
  const Row one = row_of_sequence(std::vector<int64_t>{5}, {.multiple = 3});
  EXPECT_THAT(one.tokens, ElementsAre(5, 0, 0));
  EXPECT_THAT(one.targets, ElementsAre(kNo, kNo, kNo));
  EXPECT_THAT(one.segment, ElementsAre(0, -1, -1));
  const Row within_prefix =
      row_of_sequence(std::vector<int64_t>{5, 6}, {.multiple = 1, .unscored_prefix = 7});
  EXPECT_THAT(within_prefix.tokens, ElementsAre(5));
  EXPECT_THAT(within_prefix.targets, ElementsAre(kNo));
}

TEST(PackingTest, LengthsAreTheSmallestThatFit) {
  for (int64_t n = 1; n < 30; ++n) {
    for (int64_t multiple = 1; multiple < 9; ++multiple) {
      const std::vector<int64_t> tokens(static_cast<size_t>(n), 1);
      const Row row = row_of_sequence(tokens, {.multiple = multiple});
      const auto columns = static_cast<int64_t>(row.tokens.size());
      EXPECT_EQ(columns % multiple, 0);
      EXPECT_GE(columns, std::max<int64_t>(n - 1, 1));
      EXPECT_LT(columns - multiple, std::max<int64_t>(n - 1, 1));
      EXPECT_EQ(std::count(row.segment.begin(), row.segment.end(), 0), std::max<int64_t>(n - 1, 1));
    }
  }
}

TEST(PackingTest, NllGoesBackToItsToken) {
  std::vector<int64_t> tokens(11);
  std::iota(tokens.begin(), tokens.end(), 20);
  const Row row = row_of_sequence(tokens, {.multiple = 4, .unscored_prefix = 2});
  std::vector<float> nll;  // a model that charges each target its number
  for (const int64_t target : row.targets) {
    nll.push_back(target == kIgnored ? std::nanf("") : static_cast<float>(target));
  }
  const auto log_probs = log_probs_of_sequence(nll, 11);
  ASSERT_EQ(log_probs.size(), 11u);
  for (size_t i = 0; i < 3; ++i) EXPECT_TRUE(std::isnan(log_probs[i]));
  for (size_t i = 3; i < 11; ++i) EXPECT_EQ(log_probs[i], -static_cast<double>(tokens[i]));
  const auto lone = log_probs_of_sequence(std::vector<float>{0.f}, 1);
  ASSERT_EQ(lone.size(), 1u);
  EXPECT_TRUE(std::isnan(lone[0]));
}

TEST(PackingTest, RowsBecomeEquallyLong) {
  std::vector<Row> rows = {row_of_sequence(std::vector<int64_t>{1, 2, 3}, {}),
                           row_of_sequence(std::vector<int64_t>{4, 5, 6, 7, 8}, {})};
  rows[0].sample = 17;
  pad_rows(rows);
  EXPECT_THAT(rows[0].tokens, ElementsAre(1, 2, 0, 0));
  EXPECT_THAT(rows[0].targets, ElementsAre(2, 3, kNo, kNo));
  EXPECT_THAT(rows[0].segment, ElementsAre(0, 0, -1, -1));
  EXPECT_EQ(rows[0].sample, 17);
  EXPECT_THAT(rows[1].tokens, ElementsAre(4, 5, 6, 7));
  std::vector<Row> none;
  pad_rows(none);
  EXPECT_TRUE(none.empty());
}

TEST(PackingTest, PaddingWeighsNothing) {
  std::vector<Row> rows = {row_of_sequence(std::vector<int64_t>{1, 2, 3}, {}),
                           row_of_sequence(std::vector<int64_t>{4, 5, 6}, {}),
                           row_of_sequence(std::vector<int64_t>{4, 5, 6, 7, 8}, {})};
  rows[0].weights = {0.5f, 2.f};
  pad_rows(rows);
  EXPECT_THAT(rows[0].weights, ElementsAre(0.5f, 2.f, 0.f, 0.f));
  EXPECT_TRUE(rows[1].weights.empty());  // every target weighs 1, as before
  EXPECT_TRUE(rows[2].weights.empty());
}

TEST(PackingTest, RefusesWhatCannotBeLaidOut) {
  expect_error<std::logic_error>("row_of_sequence: no tokens, expected at least 1",
                                 [] { row_of_sequence({}, {}); });
  expect_error<std::logic_error>(
      "row_of_sequence: multiple = 0, unscored_prefix = 0, expected at least 1 and 0",
      [] { row_of_sequence(std::vector<int64_t>{1}, {.multiple = 0}); });
  expect_error<std::logic_error>(
      "log_probs_of_sequence: n = 4 tokens of 2 columns, expected 1 to columns + 1",
      [] { log_probs_of_sequence(std::vector<float>(2), 4); });
}

}  // namespace
}  // namespace tandem
