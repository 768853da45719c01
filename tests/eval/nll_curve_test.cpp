#include "eval/nll_curve.h"

#include <gtest/gtest.h>

#include <cmath>

namespace tandem {
namespace {

using Edges = std::vector<int64_t>;

TEST(CurveGridTest, BucketsAreOfOneWidthOrGrow) {
  const CurveGrid linear(11, 4, "linear");
  EXPECT_EQ(linear.buckets, (Edges{0, 3, 6, 9, 11}));
  EXPECT_EQ(linear.lengths, (Edges{1, 2, 4, 8, 11}));
  EXPECT_EQ(linear.edges, (Edges{0, 1, 2, 3, 4, 6, 8, 9, 11}));
  EXPECT_EQ(CurveGrid(256, 8, "log").buckets, (Edges{0, 1, 2, 4, 8, 16, 32, 64, 128, 256}));
  // 1000^(i / 3)
  EXPECT_EQ(CurveGrid(1000, 3, "log").buckets, (Edges{0, 1, 10, 100, 1000}));
  EXPECT_EQ(CurveGrid(3, 100, "log").buckets, (Edges{0, 1, 2, 3}));  // none is empty
  EXPECT_EQ(CurveGrid(1, 16, "log").edges, (Edges{0, 1}));
  EXPECT_EQ(CurveGrid(1, 16, "linear").edges, (Edges{0, 1}));
  EXPECT_EQ(CurveGrid(64, 4, "linear").lengths.back(), 64);
}

TEST(NllSumsTest, CurvesAreTheSumsByHand) {
  constexpr int64_t kPositions = 21;
  NllSums sums(CurveGrid(kPositions, 5, "linear"), 3, 4, 3);
  std::vector<double> nll(kPositions), count(kPositions), slot(4), in_slot(4);
  const RandomStream random(2);
  for (uint64_t i = 0; i < 200; ++i) {
    const auto position = random.below(2 * i, kPositions);
    const double value = random.uniform(2 * i + 1);
    sums.add(static_cast<int64_t>(i % 3), static_cast<int64_t>(position), value);
    nll[position] += value, count[position] += 1;
    slot[(position + 4) % 4] += value, in_slot[(position + 4) % 4] += 1;
  }
  const auto by_hand = [&](int64_t begin, int64_t end) {
    double sum = 0, n = 0;
    for (auto t = static_cast<size_t>(begin); t < static_cast<size_t>(end); ++t)
      sum += nll[t], n += count[t];
    return std::pair(sum / n, static_cast<int64_t>(n));
  };
  const auto buckets = sums.by_bucket();
  ASSERT_EQ(buckets.size(), 5u);
  for (const auto& bucket : buckets) {
    const auto [mean, n] = by_hand(bucket["begin"], bucket["end"]);
    EXPECT_NEAR(bucket["nll"].get<double>(), mean, 1e-12);
    EXPECT_EQ(bucket["tokens_scored"], n);
  }
  const auto cumulative = sums.cumulative();
  ASSERT_EQ(cumulative.size(), 6u);
  for (size_t i = 0; i < 6; ++i) {
    EXPECT_EQ(cumulative[i]["end"], i < 5 ? 1 << i : kPositions);
    const auto [mean, n] = by_hand(0, cumulative[i]["end"]);
    EXPECT_NEAR(cumulative[i]["nll"].get<double>(), mean, 1e-12);
    EXPECT_EQ(cumulative[i]["tokens_scored"], n);
  }
  EXPECT_EQ(sums.count(), 200);
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_NEAR(sums.by_block_position()[i].get<double>(), slot[i] / in_slot[i], 1e-12);
    EXPECT_EQ(sums.counts_by_block_position()[i], in_slot[i]);
  }
  EXPECT_THROW(sums.add(0, kPositions, 1), std::logic_error);
  EXPECT_THROW(sums.add(3, 0, 1), std::logic_error);

  NllSums other(CurveGrid(kPositions, 5, "linear"), 2, 4, 3);
  other.add(1, 0, 50);
  const double before = sums.nll();
  sums += other;
  EXPECT_EQ(sums.groups(), 5);
  EXPECT_NEAR(sums.nll(), before + 50, 1e-12);
  EXPECT_EQ(sums.by_bucket()[0]["tokens_scored"], by_hand(0, 5).second + 1);
  EXPECT_THROW(sums += NllSums(CurveGrid(20, 5, "linear"), 1, 4), std::logic_error);
}

TEST(NllSumsTest, APositionWithoutTargetsIsLeftOut) {
  NllSums sums(CurveGrid(16, 4, "linear"), 1);
  sums.add(0, 9, 2.5);
  EXPECT_EQ(sums.by_bucket().dump(), R"([{"begin":8,"end":12,"nll":2.5,"tokens_scored":1}])");
  EXPECT_EQ(sums.cumulative().dump(), R"([{"end":16,"nll":2.5,"tokens_scored":1}])");
}

// Groups of targets whose NLL falls as 2 / sqrt(inputs) + 1, or its running mean does.
TEST(NllSumsTest, TheFitFindsTheLawOfBucketsAndOfTheRunningMean) {
  constexpr int64_t kPositions = 512, kGroups = 20;
  NllSums falling(CurveGrid(kPositions, 512, "linear"), kGroups),
      running(CurveGrid(kPositions, 16, "log"), kGroups);
  const auto law = [](int64_t n) { return 2 / std::sqrt(static_cast<double>(n)) + 1; };
  const RandomStream random(4);
  for (int64_t group = 0; group < kGroups; ++group) {
    const double level = 0.05 * random.normal(static_cast<uint64_t>(group));
    for (int64_t t = 0; t < kPositions; ++t) {
      falling.add(group, t, law(t + 1) + level);
      const double before = t == 0 ? 0 : static_cast<double>(t) * law(t);
      running.add(group, t, static_cast<double>(t + 1) * law(t + 1) - before + level);
    }
  }
  for (const auto& fit : {falling.fit("buckets", "windows", 100, random),
                          running.fit("cumulative", "windows", 100, random)}) {
    EXPECT_NEAR(fit["b"].get<double>(), 0.5, 1e-5) << fit;
    EXPECT_NEAR(fit["c"].get<double>(), 1, 0.05) << fit;
    EXPECT_NEAR(fit["a"].get<double>(), 2, 1e-3) << fit;
    EXPECT_EQ(fit["separated"], true);
    EXPECT_TRUE(fit["why_not"].is_null());
    EXPECT_EQ(fit["interval"]["groups"], kGroups);
    EXPECT_EQ(fit["interval"]["resamples"], 100);
    EXPECT_LE(fit["interval"]["c"][0].get<double>(), fit["c"].get<double>());
    EXPECT_GE(fit["interval"]["c"][1].get<double>(), fit["c"].get<double>());
  }
  NllSums one(CurveGrid(kPositions, 16, "log"), 1);
  for (int64_t t = 0; t < kPositions; ++t) one.add(0, t, law(t + 1));
  const auto fit = one.fit("buckets", "windows", 100, random);
  EXPECT_FALSE(fit["b"].is_null());
  EXPECT_TRUE(fit["interval"]["b"].is_null());
  EXPECT_EQ(fit["separated"], false);
  EXPECT_EQ(fit["why_not"], "cannot be separated: one unit cannot be drawn anew");
}

}  // namespace
}  // namespace tandem
