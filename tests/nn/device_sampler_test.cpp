#include "nn/device_sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "tests/nn/helpers.h"

namespace tandem {
namespace {

// log of probabilities that sum to 1, in an order that is neither rising nor falling
const std::vector<double> kProbabilities = {0.07, 0.31, 0.02, 0.23, 0.11, 0.05, 0.17, 0.04};

Tensor logits_of(const std::vector<double>& probabilities, int64_t batch) {
  return torch::tensor(probabilities, torch::kFloat64).log().repeat({batch, 1}).to(torch::kFloat32);
}

// How often each id comes up in `calls` calls of `batch` rows.
std::vector<int64_t> counts_of(const SamplingConfig& config, int64_t batch, int calls) {
  DeviceSampler sampler(config, batch, torch::kCPU);
  const Tensor logits = logits_of(kProbabilities, batch);
  std::vector<int64_t> counts(kProbabilities.size());
  for (int call = 0; call < calls; ++call) {
    const Tensor ids = sampler.sample(logits);
    for (int64_t b = 0; b < batch; ++b) ++counts[static_cast<size_t>(ids[b].item<int64_t>())];
  }
  return counts;
}

std::set<size_t> drawn(const std::vector<int64_t>& counts) {
  std::set<size_t> ids;
  for (size_t i = 0; i < counts.size(); ++i) {
    if (counts[i] > 0) ids.insert(i);
  }
  return ids;
}

TEST(DeviceSamplerTest, GreedyTakesTheLargestAllowed) {
  const Tensor logits = torch::tensor({{0.5, 2.0, 1.0}, {3.0, -1.0, 2.5}});
  DeviceSampler greedy({.temperature = 0}, 2, torch::kCPU);
  EXPECT_TRUE(greedy.sample(logits).equal(torch::tensor({1, 0})));
  EXPECT_EQ(greedy.sample(logits).scalar_type(), torch::kInt64);
  DeviceSampler without_one({.temperature = 0, .forbidden = {1, 0}}, 2, torch::kCPU);
  EXPECT_TRUE(without_one.sample(logits).equal(torch::tensor({2, 2})));
}

TEST(DeviceSamplerTest, TopKDrawsExactlyTheKMostLikely) {
  const auto counts = counts_of({.top_k = 3, .seed = 1}, 64, 60);
  EXPECT_EQ(drawn(counts), (std::set<size_t>{1, 3, 6}));  // 0.31, 0.23, 0.17
}

TEST(DeviceSamplerTest, TopPDrawsTheSmallestSetThatReachesIt) {
  // 0.31 + 0.23 = 0.54 < 0.6 <= 0.71
  EXPECT_EQ(drawn(counts_of({.top_p = 0.6, .seed = 2}, 64, 60)), (std::set<size_t>{1, 3, 6}));
  EXPECT_EQ(drawn(counts_of({.top_p = 0.3, .seed = 2}, 64, 60)), (std::set<size_t>{1}));
  EXPECT_EQ(drawn(counts_of({.top_p = 1e-9, .seed = 2}, 64, 60)), (std::set<size_t>{1}));
}

TEST(DeviceSamplerTest, TopPCountsWhatTopKLeft) {
  // of 0.31, 0.23, 0.17 the first two hold 0.76
  EXPECT_EQ(drawn(counts_of({.top_k = 3, .top_p = 0.75, .seed = 3}, 64, 60)),
            (std::set<size_t>{1, 3}));
}

TEST(DeviceSamplerTest, ForbiddenIdsNeverComeUp) {
  const auto counts = counts_of({.seed = 4, .forbidden = {1, 6}}, 64, 60);
  EXPECT_EQ(drawn(counts), (std::set<size_t>{0, 2, 3, 4, 5, 7}));
}

// Pearson's chi-squared of the counts; 1e-4 of true samples exceed the limits given for the degrees
// of freedom.
double chi_squared(const std::vector<int64_t>& counts, const std::vector<double>& probabilities) {
  double n = 0, sum = 0, result = 0;
  for (const int64_t count : counts) n += static_cast<double>(count);
  for (const double p : probabilities) sum += p;
  for (size_t i = 0; i < counts.size(); ++i) {
    const double expected = n * probabilities[i] / sum;
    if (expected > 0) result += std::pow(static_cast<double>(counts[i]) - expected, 2) / expected;
  }
  return result;
}

TEST(DeviceSamplerTest, FrequenciesAreTheProbabilities) {
  EXPECT_LT(chi_squared(counts_of({.seed = 5}, 50, 400), kProbabilities),
            29.9);  // 7 degrees of freedom
}

TEST(DeviceSamplerTest, FrequenciesFollowTemperatureAndTopK) {
  std::vector<double> expected(kProbabilities.size());
  for (const size_t i : {1u, 3u, 6u}) expected[i] = std::pow(kProbabilities[i], 1 / 0.7);
  EXPECT_LT(chi_squared(counts_of({.temperature = 0.7, .top_k = 3, .seed = 6}, 50, 400), expected),
            18.5);  // 2 degrees
}

TEST(DeviceSamplerTest, ARowDrawsTheSameWhateverTheBatch) {
  const Tensor logits = logits_of(kProbabilities, 1);
  DeviceSampler together({.seed = 7}, 3, torch::kCPU), alone({.seed = 7}, 1, torch::kCPU, {2}),
      other_seed({.seed = 8}, 1, torch::kCPU, {2});
  Tensors of_together, of_alone, of_other, first_row;
  for (int call = 0; call < 300; ++call) {  // passes the point where numbers are made anew
    const Tensor ids = together.sample(logits.repeat({3, 1}));
    first_row.push_back(ids[0]);
    of_together.push_back(ids[2]);
    of_alone.push_back(alone.sample(logits)[0]);
    of_other.push_back(other_seed.sample(logits)[0]);
  }
  EXPECT_TRUE(torch::stack(of_together).equal(torch::stack(of_alone)));
  EXPECT_FALSE(torch::stack(of_together).equal(torch::stack(of_other)));
  EXPECT_FALSE(torch::stack(of_together).equal(torch::stack(first_row)));
}

TEST(DeviceSamplerTest, CallsThatAreSkippedAreThoseNotDrawn) {
  const Tensor logits = logits_of(kProbabilities, 3);
  DeviceSampler all({.seed = 10}, 3, torch::kCPU), some({.seed = 10}, 3, torch::kCPU);
  Tensors of_all;
  for (int call = 0; call < 1200; ++call) of_all.push_back(all.sample(logits));
  size_t call = 0;
  // beyond numbers that are there, up to their end, over 256 calls at once, and not at all
  for (const int64_t n : {2, 3, 240, 11, 0, 700, 15}) {
    some.skip(n);
    call += static_cast<size_t>(n);
    for (int i = 0; i < 5; ++i, ++call)
      EXPECT_TRUE(some.sample(logits).equal(of_all[call])) << "call " << call;
  }
  EXPECT_THROW(some.skip(-1), c10::Error);
}

TEST(DeviceSamplerTest, NeverDrawsWhatHasNoProbability) {
  const double infinity = std::numeric_limits<double>::infinity();
  const Tensor logits = torch::tensor({-infinity, 0.0, -infinity, -infinity}).repeat({64, 1});
  for (const int64_t top_k : {0, 3}) {
    DeviceSampler sampler({.top_k = top_k, .seed = 9}, 64, torch::kCPU);
    EXPECT_TRUE(sampler.sample(logits).eq(1).all().item<bool>());
  }
}

TEST(DeviceSamplerTest, RefusesSettingsThatMeanNothing) {
  EXPECT_THROW(DeviceSampler({.temperature = -1}, 1, torch::kCPU), c10::Error);
  EXPECT_THROW(DeviceSampler({.top_p = 0}, 1, torch::kCPU), c10::Error);
  EXPECT_THROW(DeviceSampler({}, 2, torch::kCPU, {0}), c10::Error);
  DeviceSampler sampler({}, 2, torch::kCPU);
  EXPECT_THROW(sampler.sample(torch::zeros({3, 5})), c10::Error);
}

}  // namespace
}  // namespace tandem
