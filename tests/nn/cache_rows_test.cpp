#include "nn/cache_rows.h"

#include <gtest/gtest.h>

#include <limits>

#include "tests/nn/helpers.h"

namespace tandem {
namespace {

TEST(CacheRowsTest, ARowOfCodesHasRoomForItsScaleOnAnAddressOfFour) {
  EXPECT_EQ(cache_row_width(6, torch::kBFloat16), 6);
  EXPECT_EQ(cache_row_width(6, torch::kInt8), 8 + 4);
  EXPECT_EQ(cache_row_width(64, torch::kInt8), 64 + 4);
  EXPECT_EQ(cache_bytes_per_token(3, 64, torch::kBFloat16), 2 * 3 * 64 * 2);
  EXPECT_EQ(cache_bytes_per_token(3, 64, torch::kInt8), 2 * 3 * 68);
}

TEST(CacheRowsTest, EachNumberIsOffByHalfAScaleAtMost) {
  for (const int64_t head_dim : {2, 6, 64}) {
    const auto x = 50 * torch::randn({2, 7, 3, head_dim}, seeded(1), torch::kFloat64).pow(3);
    const auto rows = to_cache_rows(x, torch::kInt8);
    EXPECT_EQ(rows.sizes(),
              (std::vector<int64_t>{2, 7, 3, cache_row_width(head_dim, torch::kInt8)}));
    const auto half = x.abs().amax(-1, true) / 127 / 2;
    const auto back = from_cache_rows(rows, head_dim, torch::kFloat64);
    EXPECT_TRUE(((back - x).abs() <= half * (1 + 1e-5)).all().item<bool>()) << head_dim;
    // The largest of each head is itself, but for float32.
    const auto largest = x.abs().amax(-1);
    expect_close(back.abs().amax(-1) / largest, torch::ones_like(largest), 2e-7);
  }
}

TEST(CacheRowsTest, WhatIsHeldIsTheSameWithAnyNeighboursAndAfterASlice) {
  const auto x = torch::randn({2, 7, 3, 6}, seeded(2));
  const auto rows = to_cache_rows(x, torch::kInt8);
  const auto alone = to_cache_rows(x.narrow(1, 4, 1), torch::kInt8);
  EXPECT_TRUE(rows.narrow(1, 4, 1).equal(alone));
  EXPECT_TRUE(to_cache_rows(rows, torch::kInt8).equal(rows));
  const auto whole = from_cache_rows(rows, 6, torch::kFloat32);
  EXPECT_TRUE(from_cache_rows(rows.slice(1, 2, 5).transpose(1, 2), 6, torch::kFloat32)
                  .equal(whole.slice(1, 2, 5).transpose(1, 2)));
}

TEST(CacheRowsTest, ZerosStayZerosAndWhatIsNotFiniteShows) {
  EXPECT_TRUE(from_cache_rows(to_cache_rows(torch::zeros({1, 1, 2, 4}), torch::kInt8), 4,
                              torch::kFloat32)
                  .eq(0)
                  .all()
                  .item<bool>());
  // Room that nothing was written to reads as zeros too.
  EXPECT_TRUE(from_cache_rows(torch::zeros({1, 8}, torch::kInt8), 4, torch::kFloat32)
                  .eq(0)
                  .all()
                  .item<bool>());
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    const auto x = torch::tensor({1.0F, bad, 2.0F, 3.0F});
    EXPECT_FALSE(from_cache_rows(to_cache_rows(x, torch::kInt8), 4, torch::kFloat32)
                     .isfinite()
                     .any()
                     .item<bool>());
  }
}

TEST(CacheRowsTest, FloatingTypesAreCast) {
  const auto x = torch::randn({2, 3, 1, 4}, seeded(3));
  EXPECT_TRUE(to_cache_rows(x, torch::kBFloat16).equal(x.to(torch::kBFloat16)));
  EXPECT_TRUE(from_cache_rows(x, 4, torch::kFloat64).equal(x.to(torch::kFloat64)));
}

}  // namespace
}  // namespace tandem
