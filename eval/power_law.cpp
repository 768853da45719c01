#include "eval/power_law.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

// With u = log n less its mean m over the points, a n^-b + c is slope * g(b, u) + level with
//   g(b, u) = (1 - exp(-b u)) / b,   g(0, u) = u,
// which is smooth where b passes 0, so that an exponent that may be 0 is seen to be so:
//   c = level + slope / b,   a = -slope / b * exp(b m).

namespace tandem {
namespace {

double basis(double b, double u) { return std::abs(b) < 1e-9 ? u : -std::expm1(-b * u) / b; }

struct Line {
  double slope = 0, level = 0, squares = 0;  // squares: weighted sum of what is left
};

Line line_through(std::span<const double> g, std::span<const double> y, std::span<const double> w) {
  double sum = 0, mean_g = 0, mean_y = 0;
  for (size_t i = 0; i < g.size(); ++i)
    sum += w[i], mean_g += w[i] * g[i], mean_y += w[i] * (w[i] > 0 ? y[i] : 0);
  mean_g /= sum, mean_y /= sum;
  double gg = 0, gy = 0;
  for (size_t i = 0; i < g.size(); ++i) {
    if (w[i] == 0) continue;
    gg += w[i] * (g[i] - mean_g) * (g[i] - mean_g);
    gy += w[i] * (g[i] - mean_g) * (y[i] - mean_y);
  }
  Line line;
  line.slope = gg > 0 ? gy / gg : 0;
  line.level = mean_y - line.slope * mean_g;
  for (size_t i = 0; i < g.size(); ++i) {
    if (w[i] == 0) continue;
    const double left = y[i] - line.level - line.slope * g[i];
    line.squares += w[i] * left * left;
  }
  return line;
}

std::string why_not_separated(const FittedPowerLaw& fitted) {
  constexpr double kTolerance = 1e-6;
  if (!fitted.fit) return "fewer than 4 points";
  if (!fitted.b) return "one unit cannot be drawn anew";
  const auto [low, high] = *fitted.b;
  if (fitted.slope->holds(0))
    return "the curve is flat: the interval of its slope contains 0";
  if (low <= kTolerance && high >= -kTolerance) return "the interval of b contains 0";
  if (high < 0) return "b is below 0: the curve does not level off";
  if (high >= PowerLawFitter::kHighest - kTolerance)
    return "the interval of b reaches the end of the range that is searched";
  return "";
}

}  // namespace

double PowerLaw::at(double n) const { return a * std::pow(n, -b) + c; }

PowerLawFitter::PowerLawFitter(const std::vector<double>& n) {
  for (const double value : n) {
    if (!(value > 0)) {
      throw std::logic_error("PowerLawFitter: n = " + std::to_string(value) +
                             ", expected a number above 0");
    }
    log_n_.push_back(std::log(value));
    mean_log_n_ += log_n_.back() / static_cast<double>(n.size());
  }
  for (double& u : log_n_) u -= mean_log_n_;
  for (int64_t i = 0; i < kGrid; ++i) {
    const double b = kLowest + (kHighest - kLowest) * static_cast<double>(i) / (kGrid - 1);
    auto& of_b = bases_.emplace_back();
    for (const double u : log_n_) of_b.push_back(basis(b, u));
  }
}

std::optional<PowerLawFit> PowerLawFitter::fit(std::span<const double> nll,
                                               std::span<const double> weight) const {
  if (nll.size() != log_n_.size() || weight.size() != log_n_.size())
    throw std::logic_error("PowerLawFitter::fit: " + std::to_string(nll.size()) + " values and " +
                           std::to_string(weight.size()) + " weights, expected " +
                           std::to_string(log_n_.size()));
  if (std::count_if(weight.begin(), weight.end(), [](double w) { return w > 0; }) < kFewestPoints)
    return std::nullopt;
  int64_t best = 0;
  double least = std::numeric_limits<double>::infinity();
  for (int64_t i = 0; i < kGrid; ++i) {
    const double squares = line_through(bases_[static_cast<size_t>(i)], nll, weight).squares;
    if (squares < least) least = squares, best = i;
  }

  std::vector<double> g(log_n_.size());
  const auto line_of = [&](double b) {
    for (size_t i = 0; i < g.size(); ++i) g[i] = basis(b, log_n_[i]);
    return line_through(g, nll, weight);
  };
  constexpr double kStep = (kHighest - kLowest) / (kGrid - 1);
  const double middle = kLowest + kStep * static_cast<double>(best);
  double low = std::max(kLowest, middle - kStep), high = std::min(kHighest, middle + kStep);
  const double share = (std::sqrt(5.0) - 1) / 2;
  double left = high - share * (high - low), right = low + share * (high - low);
  double at_left = line_of(left).squares, at_right = line_of(right).squares;
  for (int i = 0; i < 40; ++i) {
    if (at_left <= at_right) {
      high = right, right = left, at_right = at_left;
      left = high - share * (high - low), at_left = line_of(left).squares;
    } else {
      low = left, left = right, at_left = at_right;
      right = low + share * (high - low), at_right = line_of(right).squares;
    }
  }
  const double b = (low + high) / 2;
  const Line line = line_of(b);
  double sum = 0;
  for (const double w : weight) sum += w;
  return PowerLawFit{.law = {.a = -line.slope / b * std::exp(b * mean_log_n_),
                             .b = b,
                             .c = line.level + line.slope / b},
                     .slope = line.slope,
                     .error = std::sqrt(line.squares / sum)};
}

FittedPowerLaw fit_power_law(const std::vector<double>& n, int64_t units, const CurveOfUnits& curve,
                             int64_t resamples, double level, const RandomStream& random) {
  const PowerLawFitter fitter(n);
  std::vector<double> nll(n.size()), weight(n.size());
  const auto fit_of = [&](const std::vector<int64_t>& times) {
    curve(times, nll, weight);
    return fitter.fit(nll, weight);
  };
  FittedPowerLaw fitted{.fit = fit_of(std::vector<int64_t>(static_cast<size_t>(units), 1))};
  if (units > 1 && fitted.fit) {
    const auto estimate = [&](std::span<const size_t> drawn) -> std::vector<double> {
      std::vector<int64_t> times(static_cast<size_t>(units));
      for (const size_t unit : drawn) ++times[unit];
      const auto found = fit_of(times);
      if (!found) return {};  // hardly any point was drawn
      return {found->law.a, found->law.b, found->law.c, found->slope};
    };
    const auto made = bootstrap(static_cast<size_t>(units), resamples, level, random, estimate);
    if (made.good > 0) {
      fitted.a = made.intervals[0], fitted.b = made.intervals[1];
      fitted.c = made.intervals[2], fitted.slope = made.intervals[3];
    }
  }
  fitted.why = why_not_separated(fitted);
  return fitted;
}

}  // namespace tandem
