#include "core/packing.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "tests/core/helpers.h"

namespace tandem {
namespace {

using testing::ElementsAre;

constexpr int64_t kNo = kIgnored;
constexpr Packing kBlocks = {.multiple = 4, .unscored_prefix = 3, .pad_documents = true};
constexpr Packing kBlocksWithoutPadding = {.multiple = 4, .unscored_prefix = 3};

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

TEST(PackingTest, PaddingInFrontLetsTheSecondTokenBeScored) {
  const Row row = row_of_sequence(std::vector<int64_t>{5, 6, 7, 8}, kBlocks);
  EXPECT_THAT(row.tokens, ElementsAre(0, 0, 0, 5, 6, 7, 0, 0));
  EXPECT_THAT(row.targets, ElementsAre(kNo, kNo, kNo, 6, 7, 8, kNo, kNo));
  EXPECT_THAT(row.segment, ElementsAre(-1, -1, -1, 0, 0, 0, -1, -1));
  const Row lone = row_of_sequence(std::vector<int64_t>{5}, kBlocks);
  EXPECT_THAT(lone.tokens, ElementsAre(0, 0, 0, 5));
  EXPECT_THAT(lone.targets, ElementsAre(kNo, kNo, kNo, kNo));
  EXPECT_THAT(lone.segment, ElementsAre(-1, -1, -1, 0));
}

TEST(PackingTest, TheFirstTargetsMayBeContextOnly) {
  const std::vector<int64_t> tokens = {5, 6, 7, 8, 9, 10};
  EXPECT_THAT(row_of_sequence(tokens, {}, 2).targets, ElementsAre(kNo, kNo, 8, 9, 10));
  EXPECT_THAT(row_of_sequence(tokens, kBlocks, 2).targets,
              ElementsAre(kNo, kNo, kNo, kNo, kNo, 8, 9, 10));
  // The prefix is counted from the row's start too: it does not come on top.
  EXPECT_THAT(row_of_sequence(tokens, kBlocksWithoutPadding, 2).targets,
              ElementsAre(kNo, kNo, kNo, 9, 10, kNo, kNo, kNo));
  EXPECT_THAT(row_of_sequence(tokens, {}, 77).targets, ElementsAre(kNo, kNo, kNo, kNo, kNo));
}

TEST(PackingTest, PromptsEndWithABlock) {
  for (const int64_t multiple : {1, 2, 4, 5}) {
    const Packing padded = {
        .multiple = multiple, .unscored_prefix = multiple - 1, .pad_documents = true};
    const Packing plain = {.multiple = multiple, .unscored_prefix = multiple - 1};
    EXPECT_EQ(padded.padding_to_score(), multiple - 1);
    EXPECT_EQ(plain.padding_to_score(), 0);
    for (int64_t n = 1; n < 14; ++n) {
      const int64_t padding = padded.padding_to_continue(n);
      EXPECT_EQ((padding + n) % multiple, 0);
      EXPECT_GE(padding, 0);
      EXPECT_LT(padding, multiple);
      EXPECT_EQ(plain.padding_to_continue(n), n < multiple ? multiple - n : 0);
    }
  }
}

Row row_of_segments(const std::vector<int32_t>& segment) {
  Row row;
  row.segment = segment;
  for (size_t t = 0; t < segment.size(); ++t) {
    row.tokens.push_back(static_cast<int64_t>(t) + 10);
    row.targets.push_back(static_cast<int64_t>(t) + 11);
    row.weights.push_back(0.5f);
  }
  return row;
}

TEST(PackingTest, FirstBlocksOfRowsAndOfDocumentsAreNotScored) {
  // Three documents: one of two blocks, one of one with padding on both sides, one of three whose
  // last is cut short.
  std::vector<Row> rows = {
      row_of_segments({0, 0, 0, 0, 0, 0, 0, -1, -1, 1, 1, -1, -1, -1, 2, 2, 2, 2, 2, 2, 2, 2})};
  apply_packing(rows, kBlocks);
  EXPECT_THAT(rows[0].targets, ElementsAre(kNo, kNo, kNo, 14, 15, 16, 17, 18, kNo, kNo, kNo, 22,
                                           kNo, kNo, kNo, 26, 27, 28, 29, 30, 31, 32));
  for (size_t t = 0; t < rows[0].targets.size(); ++t)
    EXPECT_EQ(rows[0].weights[t], rows[0].targets[t] == kNo ? 0.0f : 0.5f) << t;
}

TEST(PackingTest, DocumentsThatSeeEachOtherLoseTheFirstBlockOfTheRowOnly) {
  std::vector<Row> rows = {row_of_segments({-1, -1, 0, 0, 0, 0, 0, -1, -1, 0, 0, 0}),
                           row_of_segments({0, 0, 0, 0, -1, -1, -1, -1, -1, -1, -1, -1}),
                           row_of_segments({0, 0})};
  rows[2].weights.clear();
  apply_packing(rows, kBlocks);
  EXPECT_THAT(rows[0].targets, ElementsAre(kNo, kNo, kNo, 14, 15, 16, 17, 18, 19, 20, 21, 22));
  EXPECT_THAT(rows[1].targets, ElementsAre(kNo, kNo, kNo, 14, 15, 16, 17, 18, 19, 20, 21, 22));
  EXPECT_THAT(rows[2].targets, ElementsAre(kNo, kNo));
  EXPECT_TRUE(rows[2].weights.empty());
}

TEST(PackingTest, AModelWithoutAPrefixScoresAll) {
  std::vector<Row> rows = {row_of_segments({0, 0, 1, 1, 1})};
  apply_packing(rows, {});
  EXPECT_THAT(rows[0].targets, ElementsAre(11, 12, 13, 14, 15));
  EXPECT_THAT(rows[0].weights, ElementsAre(0.5f, 0.5f, 0.5f, 0.5f, 0.5f));
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
  const auto log_probs = log_probs_of_sequence(nll, 11, {.multiple = 4, .unscored_prefix = 2});
  ASSERT_EQ(log_probs.size(), 11u);
  for (size_t i = 0; i < 3; ++i) EXPECT_TRUE(std::isnan(log_probs[i]));
  for (size_t i = 3; i < 11; ++i) EXPECT_EQ(log_probs[i], -static_cast<double>(tokens[i]));
  const auto padded = log_probs_of_sequence(
      std::vector<float>{9.f, 9.f, std::nanf(""), 1.f, 2.f, 3.f, 9.f, 9.f}, 4, kBlocks);
  EXPECT_TRUE(std::isnan(padded[0]));
  EXPECT_EQ(std::vector<double>(padded.begin() + 1, padded.end()),
            (std::vector<double>{-1, -2, -3}));
  const auto lone = log_probs_of_sequence(std::vector<float>{0.f}, 1, {});
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
      "log_probs_of_sequence: n = 4 tokens after 3 of padding, of 5 columns, expected 1 to "
      "columns - padding + 1",
      [] { log_probs_of_sequence(std::vector<float>(5), 4, kBlocks); });
  expect_error<std::logic_error>(
      "apply_packing: multiple = 2, unscored_prefix = -1, expected at least 1 and 0", [] {
        std::vector<Row> rows;
        apply_packing(rows, {.multiple = 2, .unscored_prefix = -1});
      });
  expect_error<std::logic_error>("padding_to_continue: a prompt of 0 tokens, expected at least 1",
                                 [] { kBlocks.padding_to_continue(0); });
}

Row numbered_row(int64_t first, bool weighted) {
  Row row = {{first, first + 1, first + 2}, {first + 1, first + 2, kNo}, {0, 0, 1}, first * 1000};
  if (weighted) row.weights = {0.5f, 2.f, 0.f};
  return row;
}

TEST(PackingTest, RowsArePackedOneBehindTheOther) {
  const auto memory = pack_rows(std::vector<Row>{numbered_row(10, false), numbered_row(20, true)});
  const RowsView rows = memory->view();
  EXPECT_EQ(rows.rows, 2);
  EXPECT_EQ(rows.length, 3);
  EXPECT_THAT(std::span(rows.tokens, 6), ElementsAre(10, 11, 12, 20, 21, 22));
  EXPECT_THAT(std::span(rows.targets, 6), ElementsAre(11, 12, kNo, 21, 22, kNo));
  EXPECT_THAT(std::span(rows.segment, 6), ElementsAre(0, 0, 1, 0, 0, 1));
  EXPECT_THAT(std::span(rows.weights, 6), ElementsAre(1.f, 1.f, 1.f, 0.5f, 2.f, 0.f));
  EXPECT_THAT(std::span(rows.samples, 2), ElementsAre(10'000, 20'000));
  EXPECT_EQ(pack_rows(std::vector<Row>{numbered_row(10, false)})->view().weights, nullptr);
  EXPECT_EQ(pack_rows({})->view().rows, 0);
}

TEST(PackingTest, RowsArePackedIntoTheMemoryThatIsMade) {
  std::vector<const RowsMemory*> made;
  const auto memory = pack_rows(std::vector<Row>{numbered_row(10, true), numbered_row(20, true)},
                                [&](int64_t rows, int64_t length, bool weighted) {
                                  EXPECT_EQ(rows, 2);
                                  EXPECT_EQ(length, 3);
                                  EXPECT_TRUE(weighted);
                                  auto plain = make_rows_memory(rows, length, weighted);
                                  made.push_back(plain.get());
                                  return plain;
                                });
  EXPECT_THAT(made, ElementsAre(memory.get()));
}

TEST(PackingTest, SlicesAreRowsOfTheSameMemory) {
  std::vector<Row> rows;
  for (const int64_t first : {10, 20, 30, 40, 50}) rows.push_back(numbered_row(first, true));
  const auto memory = pack_rows(rows);
  const RowsView slice = memory->view().slice(1, 3).slice(1, 2);
  EXPECT_EQ(slice.rows, 2);
  EXPECT_THAT(std::span(slice.tokens, 6), ElementsAre(30, 31, 32, 40, 41, 42));
  EXPECT_THAT(std::span(slice.targets, 6), ElementsAre(31, 32, kNo, 41, 42, kNo));
  EXPECT_THAT(std::span(slice.samples, 2), ElementsAre(30'000, 40'000));
  slice.weights[0] = 7;
  slice.segment[5] = 9;
  EXPECT_EQ(memory->view().weights[2 * 3], 7);
  EXPECT_EQ(memory->view().segment[3 * 3 + 2], 9);
  expect_error<std::logic_error>("RowsView::slice: rows 4 to 6 of 5",
                                 [&] { memory->view().slice(4, 2); });
  expect_error<std::logic_error>("RowsView::slice: rows -1 to 1 of 5",
                                 [&] { memory->view().slice(-1, 2); });
}

TEST(PackingTest, PackedRowsAreUnscoredAsRowsAre) {
  std::vector<Row> rows = {row_of_segments({0, 0, 0, 0, 0, 0, 0, -1, -1, 1, 1, -1, 2, 2}),
                           row_of_segments({-1, -1, 0, 0, 0, 0, 0, -1, -1, 0, 0, 0, 1, 1}),
                           row_of_segments({0, 0, 0, 0, -1, -1, -1, -1, 3, 3, 3, 3, 3, 3})};
  for (const Packing& packing :
       {kBlocks, kBlocksWithoutPadding, Packing{}, {.multiple = 2, .unscored_prefix = 99}}) {
    for (const bool weighted : {false, true}) {
      std::vector<Row> apart = rows;
      for (Row& row : apart) row.weights.resize(weighted ? row.weights.size() : 0);
      const auto memory = pack_rows(apart);
      apply_packing(apart, packing);
      apply_packing(memory->view(), packing);
      const RowsView together = memory->view();
      for (size_t r = 0; r < apart.size(); ++r) {
        EXPECT_TRUE(std::ranges::equal(apart[r].targets, std::span(together.targets + 14 * r, 14)));
        EXPECT_TRUE(!weighted ||
                    std::ranges::equal(apart[r].weights, std::span(together.weights + 14 * r, 14)));
      }
    }
  }
}

TEST(PackingTest, RowsOfDifferentLengthsAreNotPacked) {
  Row two = numbered_row(20, true);
  two.tokens.pop_back();
  expect_error<std::logic_error>(
      "pack_rows: a row has 2 tokens, 3 targets and 3 segments, expected 3 each", [&] {
        pack_rows(std::vector<Row>{numbered_row(10, false), two});
      });
  two = numbered_row(20, true);
  two.weights.pop_back();
  expect_error<std::logic_error>("pack_rows: a row has 2 weights, expected 3 or none", [&] {
    pack_rows(std::vector<Row>{numbered_row(10, false), two});
  });
}

}  // namespace
}  // namespace tandem
