#include "eval/fit.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <limits>

#include "eval/bootstrap.h"

namespace tandem {
namespace {

// The numbers of Hoffmann et al. (2022, eq. 10).
const LossLaw kChinchilla = {.floor = 1.69,
                             .log_coefficients = {std::log(406.4), std::log(410.7)},
                             .exponents = {0.34, 0.28}};
const LossLaw kOfCompute = {.floor = 1.7, .log_coefficients = {std::log(60)}, .exponents = {0.12}};

/// Losses of `law` with noise on their logs: sizes from 1M to 1B parameters by tokens from 100M to
/// 100B, or as many budgets of FLOPs.
LossPoints synthetic(const LossLaw& law, int n, double noise, const RandomStream& random) {
  LossPoints points;
  points.x.resize(law.exponents.size());
  const auto between = [&](double low, double decades, int i, int of) {
    return low * std::pow(10, decades * i / (of - 1));
  };
  const auto add = [&](const std::vector<double>& x) {
    for (size_t k = 0; k < x.size(); ++k) points.x[k].push_back(x[k]);
    points.loss.push_back(law(x) * std::exp(noise * random.normal(points.loss.size())));
  };
  if (points.x.size() == 1) {
    for (int i = 0; i < n * n; ++i) add({between(1e15, 6, i, n * n)});
    return points;
  }
  for (int i = 0; i < n; ++i)
    for (int j = 0; j < n; ++j) add({between(1e6, 3, i, n), between(1e8, 3, j, n)});
  return points;
}

TEST(HuberTest, IsASquareNearNothingAndALineBeyond) {
  EXPECT_DOUBLE_EQ(huber(5e-4, 1e-3), 1.25e-7);
  EXPECT_DOUBLE_EQ(huber(-0.01, 1e-3), 1e-3 * (0.01 - 0.0005));
  EXPECT_DOUBLE_EQ(huber(1e-3, 1e-3), 0.5e-6);
}

TEST(LossLawObjectiveTest, GradientAgreesWithFiniteDifferences) {
  for (const LossLaw* law : {&kChinchilla, &kOfCompute}) {
    const LossPoints points = synthetic(*law, 4, 0.002, RandomStream(3));
    for (const double delta : {kHuberDelta, 0.1}) {
      const LossLawObjective objective(points, delta);
      std::vector<double> at(objective.parameters()), gradient(at.size()), unused(at.size());
      for (size_t j = 0; j < at.size(); ++j) at[j] = 0.3 + 0.2 * RandomStream(5).normal(j);
      objective(at, gradient);
      for (size_t j = 0; j < at.size(); ++j) {
        constexpr double kStep = 1e-6;
        auto above = at, below = at;
        above[j] += kStep, below[j] -= kStep;
        const double expected = (objective(above, unused) - objective(below, unused)) / (2 * kStep);
        EXPECT_NEAR(gradient[j], expected, 1e-6 * std::abs(expected) + 1e-9 * delta) << j;
      }
    }
  }
}

TEST(LossLawObjectiveTest, IsTheSumOfItsTermsNotTheirMean) {
  // One run is off by 1 %, the others lie on the law.
  LossPoints points = synthetic(kChinchilla, 3, 0, RandomStream(1));
  points.loss[4] *= std::exp(0.01);
  const auto value_of = [&](const LossPoints& of, std::vector<double>& gradient) {
    const LossLawObjective objective(of);
    std::vector<double> at = {std::log(kChinchilla.floor)};
    for (size_t k = 0; k < 2; ++k) {
      at.push_back(kChinchilla.log_coefficients[k] -
                   kChinchilla.exponents[k] * objective.mean_log_x(k));
      at.push_back(kChinchilla.exponents[k]);
    }
    gradient.resize(at.size());
    return objective(at, gradient);
  };
  std::vector<double> once, twice;
  EXPECT_NEAR(value_of(points, once), huber(0.01, kHuberDelta), 1e-16);
  std::vector<size_t> runs;
  for (size_t i = 0; i < 2 * points.size(); ++i) runs.push_back(i % points.size());
  EXPECT_NEAR(value_of(points.select(runs), twice), 2 * huber(0.01, kHuberDelta), 1e-16);
  for (size_t j = 0; j < once.size(); ++j) EXPECT_NEAR(twice[j], 2 * once[j], 1e-13);
}

TEST(LbfgsTest, GoesAroundTheBendOfRosenbrocksValley) {
  int calls = 0;
  const Minimum found = lbfgs(
      [&](std::span<const double> x, std::span<double> g) {
        ++calls;
        const double a = x[1] - x[0] * x[0];
        g[0] = -400 * a * x[0] - 2 * (1 - x[0]);
        g[1] = 200 * a;
        return 100 * a * a + (1 - x[0]) * (1 - x[0]);
      },
      {-1.2, 1});
  EXPECT_NEAR(found.at[0], 1, 1e-6);
  EXPECT_NEAR(found.at[1], 1, 1e-6);
  EXPECT_LT(calls, 200);  // the gradient alone takes thousands
}

TEST(LbfgsTest, CreasesDoNotStopIt) {  // as Huber terms have them, seen from afar
  const Minimum found = lbfgs(
      [](std::span<const double> x, std::span<double> g) {
        g[0] = 3 * (x[0] > 1 ? 1 : -1);
        g[1] = x[1] > -2 ? 0.1 : -0.1;
        return 3 * std::abs(x[0] - 1) + 0.1 * std::abs(x[1] + 2);
      },
      {5, 5});
  EXPECT_NEAR(found.at[0], 1, 1e-4);
  EXPECT_NEAR(found.at[1], -2, 1e-3);
}

TEST(FitTest, LossesWithoutNoiseGiveTheirLawBack) {
  for (const LossLaw* law : {&kChinchilla, &kOfCompute}) {
    const LossLaw found = fit_loss_law(synthetic(*law, 5, 0, RandomStream(1)));
    EXPECT_NEAR(found.floor, law->floor, 1e-5);
    for (size_t k = 0; k < law->exponents.size(); ++k) {
      EXPECT_NEAR(found.exponents[k], law->exponents[k], 1e-5);
      EXPECT_NEAR(found.log_coefficients[k], law->log_coefficients[k], 1e-3);
    }
    EXPECT_LT(found.rmse, 1e-6);
    EXPECT_LT(found.objective, 1e-12);
  }
}

TEST(FitTest, OneRunThatWentWrongDoesNotMoveTheLaw) {
  LossPoints points = synthetic(kChinchilla, 5, 0.001, RandomStream(2));
  points.loss[7] *= 1.3;
  const LossLaw found = fit_loss_law(points);
  EXPECT_NEAR(found.exponents[0], 0.34, 0.02);
  EXPECT_NEAR(found.exponents[1], 0.28, 0.02);
}

TEST(FitTest, NoiseWithoutALawHasAFitToo) {
  for (uint64_t seed = 0; seed < 6; ++seed) {
    LossPoints points;
    points.x.resize(2);
    for (uint64_t i = 0; i < 12; ++i) {
      points.x[0].push_back(1e6 * static_cast<double>(1 + i % 4));
      points.x[1].push_back(1e8 * static_cast<double>(1 + i / 4));
      points.loss.push_back(3 * std::exp(0.05 * RandomStream(seed).normal(i)));
    }
    const LossLaw found = fit_loss_law(points);
    const LossLaw again = fit_loss_law(points, &found);
    for (const LossLaw* law : {&found, &again}) {
      EXPECT_TRUE(std::isfinite(law->objective));
      EXPECT_LT(law->rmse, 0.1);
      for (size_t k = 0; k < 2; ++k) EXPECT_TRUE(std::isfinite(law->log_coefficients[k]));
    }
    EXPECT_LE(again.objective, found.objective * 1.001);
  }
}

TEST(BootstrapTest, QuantilesLieBetweenNeighbours) {
  const std::vector<double> sorted = {1, 2, 4, 8};
  EXPECT_DOUBLE_EQ(quantile(sorted, 0), 1);
  EXPECT_DOUBLE_EQ(quantile(sorted, 0.5), 3);
  EXPECT_DOUBLE_EQ(quantile(sorted, 1), 8);
}

TEST(BootstrapTest, QuantilesOfInfiniteValuesAreNumbers) {
  const double inf = std::numeric_limits<double>::infinity();
  const std::vector<double> sorted = {-inf, -inf, 1, inf, inf};
  EXPECT_EQ(quantile(sorted, 0.1), -inf);
  EXPECT_EQ(quantile(sorted, 0.3), -inf);  // between the two
  EXPECT_EQ(quantile(sorted, 0.5), 1);
  EXPECT_EQ(quantile(sorted, 0.6), inf);
  EXPECT_EQ(quantile(sorted, 0.9), inf);
  const Interval interval = percentile_interval({inf, 1, -inf, 2, 3}, 0.5);
  EXPECT_EQ(interval.low, 1);
  EXPECT_EQ(interval.high, 3);
}

TEST(BootstrapTest, TheSameSeedDrawsTheSameRuns) {
  const RandomStream stream(9);
  EXPECT_EQ(resample(20, stream, 3), resample(20, stream, 3));
  EXPECT_NE(resample(20, stream, 3), resample(20, stream, 4));
  const std::vector<double> values = {3, 1, 4, 1, 5, 9, 2, 6, 5, 3};
  int64_t refused = 0;
  const auto mean = [&](std::span<const size_t> runs) -> std::vector<double> {
    if (runs.front() == 0) return ++refused, std::vector<double>();
    double sum = 0;
    for (const size_t i : runs) sum += values[i];
    return {sum / 10};
  };
  const Bootstrap made = bootstrap(10, 500, 0.9, stream, mean);
  EXPECT_EQ(made.good, 500 - refused);
  EXPECT_GT(refused, 0);
  EXPECT_TRUE(made.intervals[0].holds(3.9));
  EXPECT_NEAR(made.intervals[0].high - made.intervals[0].low, 2 * 1.645 * 0.75,
              0.6);  // 2.38 / sqrt(10)
}

struct Coverage {
  std::vector<int> held;  // of floor, then each exponent
  int trials = 0;
};

/// How often the 90 % intervals of fits of noisy losses hold what the losses were made of.
Coverage coverage_of(const LossLaw& law, int n, int trials, int64_t resamples) {
  Coverage coverage{std::vector<int>(1 + law.exponents.size()), trials};
  for (int t = 0; t < trials; ++t) {
    const RandomStream random = RandomStream(11).fork(static_cast<uint64_t>(t));
    const LossPoints points = synthetic(law, n, 0.005, random);
    const LossLaw found = fit_loss_law(points);
    const Bootstrap made = bootstrap(
        points.size(), resamples, 0.9, random.fork("bootstrap"), [&](std::span<const size_t> runs) {
          const LossLaw drawn = fit_loss_law(points.select(runs), &found);
          std::vector<double> numbers = {drawn.floor};
          numbers.insert(numbers.end(), drawn.exponents.begin(), drawn.exponents.end());
          return numbers;
        });
    coverage.held[0] += made.intervals[0].holds(law.floor);
    for (size_t k = 0; k < law.exponents.size(); ++k)
      coverage.held[1 + k] += made.intervals[1 + k].holds(law.exponents[k]);
  }
  return coverage;
}

TEST(FitTest, IntervalsHoldWhatTheLossesWereMadeOf) {
  const Coverage coverage = coverage_of(kChinchilla, 5, 5, 40);
  for (const int held : coverage.held) EXPECT_GE(held, 3);
}

TEST(FitSlowTest, IntervalsOfNineTenthsHoldTheTruthAsOftenAsTheySay) {
  for (const LossLaw* law : {&kChinchilla, &kOfCompute}) {
    const Coverage coverage = coverage_of(*law, 6, 200, 100);
    for (size_t k = 0; k < coverage.held.size(); ++k) {
      const double share = coverage.held[k] / static_cast<double>(coverage.trials);
      std::printf(
          "law of %zu terms, number %zu: 90 %% intervals held the truth in %.1f %% of %d trials\n",
          law->exponents.size(), k, 100 * share, coverage.trials);
      EXPECT_GE(share, 0.85);
      EXPECT_LE(share, 1.0);
    }
  }
}

}  // namespace
}  // namespace tandem
