#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/random.h"
#include "eval/bootstrap.h"

namespace tandem {

/// L(n) = a n^-b + c.
struct PowerLaw {
  double a = 0, b = 0, c = 0;  // a and c are infinite where b is 0: L is linear in log n
  double at(double n) const;
};

struct PowerLawFit {
  PowerLaw law;
  double slope = 0;  // dL / d log n at the geometric mean of the points
  double error = 0;  // weighted root mean square of what is left
};

/// Least squares for curves over the same points: for each b a line through (n^-b, L), and b by a
/// grid over [kLowest, kHighest] and golden-section search around the best of it.
class PowerLawFitter {
 public:
  static constexpr double kLowest = -3, kHighest = 3;
  static constexpr int64_t kFewestPoints = 4;
  explicit PowerLawFitter(const std::vector<double>& n);  // > 0
  /// Points of weight 0 do not count; absent where fewer than kFewestPoints are left.
  std::optional<PowerLawFit> fit(std::span<const double> nll, std::span<const double> weight) const;

 private:
  static constexpr int64_t kGrid = 61;
  std::vector<double> log_n_;  // less their mean
  double mean_log_n_ = 0;
  std::vector<std::vector<double>> bases_;  // of the grid's exponents
};

/// A fit with intervals from units (windows, documents) drawn anew with replacement.
struct FittedPowerLaw {
  std::optional<PowerLawFit> fit = {};  // of all units; absent: too few points
  // percentiles of the resamples; absent: one unit
  std::optional<Interval> a = {}, b = {}, c = {}, slope = {};
  std::string why = "";  // the exponent cannot be separated from others; empty: it can
};

/// The curve of units of which unit u counts times[u] times: nll and weight of each point.
using CurveOfUnits = std::function<void(std::span<const int64_t> times, std::span<double> nll,
                                        std::span<double> weight)>;

/// `level`: share of resamples inside the intervals, 0.95.
FittedPowerLaw fit_power_law(const std::vector<double>& n, int64_t units, const CurveOfUnits& curve,
                             int64_t resamples, double level, const RandomStream& random);

}  // namespace tandem
