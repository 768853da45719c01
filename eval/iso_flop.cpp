#include "eval/iso_flop.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <set>
#include <utility>

namespace tandem {
namespace {

constexpr double kSameBudget = 1.05;  // FLOPs of runs of one budget are within this factor
constexpr size_t kFewestSizes = 3;    // that a parabola has

double budget_of(const ScalingRun& run) { return run.budget.value_or(run.c); }

std::vector<IsoFlopCurve> by_budget(std::span<const ScalingRun> runs) {
  std::vector<const ScalingRun*> sorted;
  for (const ScalingRun& run : runs) sorted.push_back(&run);
  std::stable_sort(sorted.begin(), sorted.end(),
                   [](const auto* a, const auto* b) { return budget_of(*a) < budget_of(*b); });
  std::vector<IsoFlopCurve> curves;
  for (const ScalingRun* run : sorted) {
    const double budget = budget_of(*run);
    if (curves.empty() || budget > curves.back().budget * kSameBudget)
      curves.push_back({.budget = budget,
                        .n = {},
                        .loss = {},
                        .parabola = {},
                        .best_n = {},
                        .best_n_interval = {}});
    curves.back().n.push_back(run->n);
    curves.back().loss.push_back(run->loss);
  }
  std::erase_if(curves, [](const IsoFlopCurve& curve) {
    return std::set<double>(curve.n.begin(), curve.n.end()).size() < kFewestSizes || !vary(curve.n);
  });
  return curves;
}

/// The slope of the line of least squares.
double slope_of(std::span<const double> x, std::span<const double> y) {
  const auto n = static_cast<double>(x.size());
  const double mean_x = std::accumulate(x.begin(), x.end(), 0.0) / n,
               mean_y = std::accumulate(y.begin(), y.end(), 0.0) / n;
  double covariance = 0, variance = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    covariance += (x[i] - mean_x) * (y[i] - mean_y);
    variance += (x[i] - mean_x) * (x[i] - mean_x);
  }
  return covariance / variance;
}

std::optional<double> lowest_of(const IsoFlopCurve& curve, std::span<const size_t> chosen) {
  std::vector<double> n, loss;
  for (const size_t i : chosen) {
    n.push_back(curve.n[i]);
    loss.push_back(curve.loss[i]);
  }
  const auto parabola = fit_parabola(n, loss);
  return parabola ? parabola->lowest() : std::nullopt;
}

}  // namespace

double Parabola::at(double n) const {
  const double x = std::log(n) - middle;
  return c0 + c1 * x + c2 * x * x;
}

std::optional<double> Parabola::lowest() const {
  if (!(c2 > 0)) return std::nullopt;
  const double n = std::exp(middle - c1 / (2 * c2));
  return std::isfinite(n) && n > 0 ? std::optional(n) : std::nullopt;
}

std::optional<Parabola> fit_parabola(std::span<const double> n, std::span<const double> loss) {
  if (std::set<double>(n.begin(), n.end()).size() < kFewestSizes) return std::nullopt;
  Parabola made;
  for (const double value : n) made.middle += std::log(value) / static_cast<double>(n.size());
  // Normal equations of the three coefficients, by elimination with pivots.
  std::array<std::array<double, 4>, 3> m{};
  for (size_t i = 0; i < n.size(); ++i) {
    const double x = std::log(n[i]) - made.middle;
    const std::array<double, 3> powers = {1, x, x * x};
    for (size_t r = 0; r < 3; ++r) {
      for (size_t c = 0; c < 3; ++c) m[r][c] += powers[r] * powers[c];
      m[r][3] += powers[r] * loss[i];
    }
  }
  for (size_t c = 0; c < 3; ++c) {
    size_t pivot = c;
    for (size_t r = c + 1; r < 3; ++r)
      pivot = std::abs(m[r][c]) > std::abs(m[pivot][c]) ? r : pivot;
    std::swap(m[c], m[pivot]);
    for (size_t r = 0; r < 3; ++r) {
      const double factor = r == c ? 0 : m[r][c] / m[c][c];
      for (size_t k = c; k < 4; ++k) m[r][k] -= factor * m[c][k];
    }
  }
  made.c0 = m[0][3] / m[0][0];
  made.c1 = m[1][3] / m[1][1];
  made.c2 = m[2][3] / m[2][2];
  return made;
}

IsoFlop iso_flop(std::span<const ScalingRun> runs, int64_t resamples, double level,
                 const RandomStream& stream) {
  IsoFlop made{by_budget(runs), {}, {}};
  std::vector<double> log_budget, log_best;                   // where there is a lowest point
  std::vector<std::vector<double>> best(made.curves.size());  // log N, by resample; NaN: none
  for (size_t k = 0; k < made.curves.size(); ++k) {
    IsoFlopCurve& curve = made.curves[k];
    curve.parabola = *fit_parabola(curve.n, curve.loss);
    curve.best_n = curve.parabola.lowest();
    if (curve.best_n) {
      log_budget.push_back(std::log(curve.budget));
      log_best.push_back(std::log(*curve.best_n));
    }
    std::vector<double> good;
    int64_t usable = 0;
    for (int64_t b = 0; b < resamples; ++b) {
      const auto chosen = resample(curve.n.size(), stream.fork(k), static_cast<uint64_t>(b));
      std::set<double> sizes;
      for (const size_t i : chosen) sizes.insert(curve.n[i]);
      usable += sizes.size() >= kFewestSizes;
      const auto lowest = lowest_of(curve, chosen);
      best[k].push_back(lowest ? std::log(*lowest) : NAN);
      if (lowest) good.push_back(std::log(*lowest));
    }
    // Three runs are on their parabola whichever are drawn: that says nothing of its error.
    if (curve.n.size() <= kFewestSizes || good.empty()) continue;
    const Interval logs = percentile_interval(good, level);
    curve.best_n_interval = Interval{std::exp(logs.low), std::exp(logs.high)};
    curve.resamples_with_minimum = static_cast<double>(good.size()) / static_cast<double>(usable);
  }
  if (log_best.size() < 2) return made;
  made.exponent = slope_of(log_budget, log_best);
  std::vector<double> exponents;
  for (int64_t b = 0; b < resamples; ++b) {
    std::vector<double> x, y;
    for (size_t k = 0; k < made.curves.size(); ++k) {
      const double value = best[k][static_cast<size_t>(b)];
      if (std::isnan(value)) continue;
      x.push_back(std::log(made.curves[k].budget));
      y.push_back(value);
    }
    if (x.size() == log_best.size()) exponents.push_back(slope_of(x, y));
  }
  const bool all_exact =
      std::none_of(made.curves.begin(), made.curves.end(),
                   [](const auto& curve) { return curve.best_n_interval.has_value(); });
  if (!exponents.empty() && !all_exact) made.exponent_interval = percentile_interval(exponents, level);
  return made;
}

}  // namespace tandem
