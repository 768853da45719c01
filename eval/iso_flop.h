#pragma once
#include <optional>
#include <span>
#include <vector>

#include "eval/bootstrap.h"
#include "eval/scaling_points.h"

namespace tandem {

// Models of several sizes, each trained with the same FLOPs: loss is a parabola in log N, and its
// lowest point the size to choose (Hoffmann et al., 2022, approach 2).

/// loss = c0 + c1 x + c2 x^2 with x = log N - `middle`.
struct Parabola {
  double middle = 0, c0 = 0, c1 = 0, c2 = 0;
  double at(double n) const;
  /// N of the lowest point; none where the parabola does not open upwards.
  std::optional<double> lowest() const;
};
/// Least squares; none with fewer than three sizes.
std::optional<Parabola> fit_parabola(std::span<const double> n, std::span<const double> loss);

struct IsoFlopCurve {
  double budget = 0;  // FLOPs
  std::vector<double> n, loss;
  Parabola parabola;
  std::optional<double> best_n;  // of the lowest point
  std::optional<Interval> best_n_interval;
  double resamples_with_minimum = 0;  // share of those with three sizes or more
};

struct IsoFlop {
  std::vector<IsoFlopCurve> curves;  // by budget
  std::optional<double> exponent;    // best N ~ C ^ exponent, from two budgets on
  std::optional<Interval> exponent_interval;
};

/// The budgets of `runs` at which three sizes or more were trained that vary(): those that their
/// steps were made of, else FLOPs within 5 % of each other.
IsoFlop iso_flop(std::span<const ScalingRun> runs, int64_t resamples, double level,
                 const RandomStream& stream);

}  // namespace tandem
