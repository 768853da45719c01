#include <gtest/gtest.h>

#include <cmath>

#include "data/sampler.h"
#include "tests/data/temp_folder.h"

namespace tandem {
namespace {

TEST(MixtureTest, CountsAreWithinOneAtEveryPrefix) {
  for (const std::vector<double>& weights : {std::vector<double>{1},
                                             {0.5, 0.5},
                                             {0.7, 0.2, 0.1},
                                             {80, 20, 5, 5, 1, 0.25},
                                             {1, 1, 1, 1, 1, 1, 1},
                                             {1e-9, 1, 2},
                                             {10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 1, 1, 1}}) {
    const Mixture mixture(weights);
    double total = 0;
    for (const double w : weights) total += w;
    std::vector<int64_t> seen(weights.size(), 0), of_period(weights.size(), 0);
    for (int64_t k = 0; k < 65536; ++k) ++of_period[mixture.pick(k).source];
    for (size_t i = 0; i < weights.size(); ++i) {
      EXPECT_GE(of_period[i], 1);
      EXPECT_NEAR(static_cast<double>(of_period[i]), weights[i] / total * 65536, 1.0);
    }
    for (int64_t k = 0; k < 2 * 65536 + 1000; ++k) {
      const auto [source, index] = mixture.pick(k);
      ASSERT_EQ(index, seen[source]) << k;  // each source gives its samples in order, without a gap
      ++seen[source];
      for (size_t i = 0; i < weights.size(); ++i) {
        const double share = static_cast<double>(of_period[i]) / 65536 * static_cast<double>(k + 1);
        ASSERT_LT(std::abs(static_cast<double>(seen[i]) - share), 1.0) << k << " " << i;
      }
    }
  }
}

TEST(MixtureTest, WeightsMustBePositive) {
  const auto message = [](std::vector<double> weights) {
    return error_of([&] { Mixture mixture(weights); }, kExitUsage);
  };
  EXPECT_EQ(message({1, 0}), "weight 0.000000 of source 1, expected a number > 0");
  EXPECT_EQ(message({-1}), "weight -1.000000 of source 0, expected a number > 0");
  EXPECT_EQ(message({}), "a mixture of 0 sources, expected 1 to 65536");
}

}  // namespace
}  // namespace tandem
