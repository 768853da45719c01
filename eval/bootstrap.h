#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "core/random.h"

namespace tandem {

/// Between what and what a number lies.
struct Interval {
  double low = 0, high = 0;
  bool holds(double value) const { return low <= value && value <= high; }
  bool operator==(const Interval&) const = default;
};

/// `n` run numbers drawn with replacement: resample number `b`.
std::vector<size_t> resample(size_t n, const RandomStream& stream, uint64_t b);

/// The share `q` of `sorted` lies at or below it, between neighbours linearly. Values may be
/// infinite.
double quantile(std::span<const double> sorted, double q);

/// Where the share `level` in the middle of `values` lies: 0.9 leaves 5 % on either side.
Interval percentile_interval(std::vector<double> values, double level);

struct Bootstrap {
  std::vector<Interval> intervals;  // of each number; empty when no resample was good
  int64_t good = 0;                 // resamples that had numbers
};

/// Percentile intervals of level `level` (0.9: from 5 % to 95 %) of each of the numbers that
/// `estimate` makes out of resampled runs; it gives none where a resample says nothing. Seeded: the
/// same every time.
Bootstrap bootstrap(
    size_t n, int64_t resamples, double level, const RandomStream& stream,
    const std::function<std::vector<double>(std::span<const size_t> runs)>& estimate);

}  // namespace tandem
