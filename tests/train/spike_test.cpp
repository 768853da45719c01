#include "train/spike.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

namespace tandem {
namespace {

constexpr int64_t kWindow = 128;
constexpr double kThreshold = 10;

/// Losses of a run without spikes: from about 9 down to a floor, each off by `noise` (relative
/// standard deviation) with the tails of Student's t with five degrees of freedom.
std::vector<double> clean_curve(uint64_t seed, double noise) {
  std::mt19937_64 random(seed);
  std::uniform_real_distribution<double> between(0, 1);
  const double floor = 2.5 + 1.5 * between(random), rise = 5 + 2 * between(random),
               time = 100 + 300 * between(random);
  std::student_t_distribution<double> t(5);
  std::vector<double> losses;
  for (int step = 0; step < 2000; ++step) {
    const double smooth = floor + rise * std::exp(-step / time);
    losses.push_back(smooth * (1 + noise * t(random) / std::sqrt(5.0 / 3)));  // variance 5 / 3
  }
  return losses;
}

bool is_spike(const SpikeDetector& detector, double loss) {
  const auto limit = detector.limit();
  return limit && loss > *limit;
}

TEST(SpikeDetectorTest, TheLimitIsTheMedianAndRobustDeviations) {
  SpikeDetector odd(5, 3);
  for (const double loss : {4.0, 2.0, 9.0, 2.5}) {
    odd.accept(loss);
    EXPECT_FALSE(odd.limit());  // too few
  }
  odd.accept(3.0);
  // The median is 3, deviations are 1, 1, 6, 0.5, 0 and their median 1.
  EXPECT_DOUBLE_EQ(odd.limit().value(), 3 + 3 * 1.4826);
  odd.accept(3.5);  // 4 is forgotten; 2, 9, 2.5, 3, 3.5: the median 3, deviations 1, 6, 0.5, 0, 0.5
  EXPECT_DOUBLE_EQ(odd.limit().value(), 3 + 3 * 1.4826 * 0.5);
  EXPECT_EQ(odd.losses(), (std::vector<double>{2, 9, 2.5, 3, 3.5}));

  SpikeDetector even(4, 2);
  for (const double loss : {1.0, 8.0, 2.0, 4.0}) even.accept(loss);
  // The median is 3, deviations are 2, 5, 1, 1 and their median 1.5.
  EXPECT_DOUBLE_EQ(even.limit().value(), 3 + 2 * 1.4826 * 1.5);
}

TEST(SpikeDetectorTest, AFlatStretchHasALeastDeviation) {
  SpikeDetector detector(6, 10);
  for (int i = 0; i < 6; ++i) detector.accept(2.5);
  EXPECT_DOUBLE_EQ(detector.limit().value(), 2.5 * 1.02);
}

// A limit of 10 robust deviations is 10.8 of this distribution's units: 6e-5 of its draws are
// above, as outliers of 20 to 30 % would be in a real run. Measured: 9.
TEST(SpikeDetectorTest, CleanCurvesRaiseHardlyAnAlarm) {
  int64_t alarms = 0;
  for (uint64_t seed = 0; seed < 100; ++seed) {
    SpikeDetector detector(kWindow, kThreshold);
    for (const double loss : clean_curve(seed, 0.02 + 0.0001 * static_cast<double>(seed))) {
      if (is_spike(detector, loss)) {
        ++alarms;
      } else {
        detector.accept(loss);
      }
    }
  }
  EXPECT_LE(alarms, 12);  // of 187,200 losses
}

// From step 1000 on, as a curve that still falls widens its own limit.
TEST(SpikeDetectorTest, SpikesAreCaught) {
  int64_t spikes = 0;
  for (uint64_t seed = 0; seed < 50; ++seed) {
    SpikeDetector detector(kWindow, kThreshold);
    std::vector<double> losses = clean_curve(seed, 0.01 + 0.0002 * static_cast<double>(seed));
    std::mt19937_64 random(1000 + seed);
    for (size_t step = 0; step < losses.size(); ++step) {
      const bool spike = step >= 1000 && random() % 50 == 0;
      if (spike) losses[step] *= 1.3 + 0.1 * static_cast<double>(random() % 10);
      const bool alarm = is_spike(detector, losses[step]);
      if (spike) {
        EXPECT_TRUE(alarm) << "curve " << seed << ", step " << step;
        ++spikes;
      }
      if (!alarm) detector.accept(losses[step]);
    }
  }
  EXPECT_GT(spikes, 900);
}

TEST(SpikeDetectorTest, RestoringGivesTheSameLimits) {
  const auto losses = clean_curve(7, 0.02);
  SpikeDetector whole(kWindow, kThreshold);
  for (size_t i = 0; i < 400; ++i) {
    whole.accept(losses[i]);
    if (i != 50 && i != 333) continue;
    SpikeDetector restored(kWindow, kThreshold);
    restored.restore(whole.losses());
    SpikeDetector original = whole;
    for (size_t j = i + 1; j < 600; ++j) {
      EXPECT_EQ(restored.limit(), original.limit());
      restored.accept(losses[j]);
      original.accept(losses[j]);
    }
    EXPECT_EQ(restored.losses(), original.losses());
  }
}

TEST(SpikeDetectorTest, AShorterWindowKeepsTheNewest) {
  SpikeDetector detector(3, kThreshold);
  detector.restore({9, 1, 2, 3});
  EXPECT_EQ(detector.losses(), (std::vector<double>{1, 2, 3}));
  SpikeDetector longer(5, kThreshold);
  longer.restore({9, 1, 2, 3});
  EXPECT_FALSE(longer.limit());
  longer.accept(4);
  EXPECT_TRUE(longer.limit());
}

TEST(SpikeDetectorTest, TakesFiniteLossesOnly) {
  SpikeDetector detector(3, kThreshold);
  EXPECT_THROW(detector.accept(std::nan("")), std::logic_error);
  EXPECT_THROW(detector.accept(INFINITY), std::logic_error);
  EXPECT_TRUE(detector.losses().empty());
}

}  // namespace
}  // namespace tandem
