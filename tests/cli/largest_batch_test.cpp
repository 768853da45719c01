#include "cli/largest_batch.h"

#include <gtest/gtest.h>

#include "tests/cli/tiny_models.h"

namespace tandem {
namespace {

/// The search on a device that holds `room` rows.
struct Searched {
  LargestBatch found;
  int64_t n_tries = 0, most = 0;
};
Searched search(int64_t room, int64_t limit) {
  Searched s;
  s.found = find_largest_batch(
      [&](int64_t rows) {
        ++s.n_tries;
        s.most = std::max(s.most, rows);
        return rows <= room;
      },
      limit);
  return s;
}

TEST(LargestBatchTest, FindsWhatFitsUpToThreePercent) {
  for (int64_t room = 1; room <= 700; ++room) {
    const Searched s = search(room, /*limit=*/100'000);
    EXPECT_LE(s.found.rows, room);
    EXPECT_LE(room - s.found.rows, s.found.rows / 32) << room << " rows fit";
    if (room < 64) {
      EXPECT_EQ(s.found.rows, room);
    }
    for (const int64_t rows : s.found.did_not_fit) EXPECT_GT(rows, room);
    EXPECT_LE(s.n_tries, 10 + 1 + 6) << room;  // doublings to 1024, halvings to a 32nd
  }
}

TEST(LargestBatchTest, NothingAboveTheLimitIsTried) {
  for (const int64_t limit : {1, 2, 5, 64, 100}) {
    const Searched s = search(/*room=*/1'000'000, limit);
    EXPECT_EQ(s.found.rows, limit);
    EXPECT_EQ(s.most, limit);
    EXPECT_TRUE(s.found.did_not_fit.empty());
  }
  EXPECT_EQ(search(/*room=*/37, /*limit=*/41).found.rows, 37);
}

TEST(LargestBatchTest, NotEvenOneRow) {
  const Searched s = search(/*room=*/0, /*limit=*/100);
  EXPECT_EQ(s.found.rows, 0);
  EXPECT_EQ(s.found.did_not_fit, std::vector<int64_t>{1});
}

TEST(LargestBatchTest, RowsInMemoryAreThoseWhoseStateItHolds) {
  const auto model = make_tiny_model(tiny_models().front().yaml);
  const int64_t row = model->state_bytes(37, torch::kFloat32).total();
  EXPECT_EQ(rows_in_memory(*model, 37, torch::kFloat32, row - 1), 0);
  EXPECT_EQ(rows_in_memory(*model, 37, torch::kFloat32, 5 * row), 5);
  EXPECT_EQ(rows_in_memory(*model, 37, torch::kFloat32, 6 * row - 1), 5);
}

}  // namespace
}  // namespace tandem
