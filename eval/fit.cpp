#include "eval/fit.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

namespace tandem {
namespace {

using Vector = std::vector<double>;

constexpr double kExponents[] = {0.05, 0.2, 0.5, 1, 2};   // of the starts
constexpr double kFloorShares[] = {0.2, 0.5, 0.8, 0.95};  // of the lowest loss
constexpr size_t kPolished = 16;                          // of the minima under wide Huber terms
constexpr double kTermShares[] = {0.15, 0.5, 0.85};       // of what is above the floor

double mean_of(const Vector& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

Vector logs_of(const Vector& values) {
  Vector logs;
  for (const double value : values) logs.push_back(std::log(value));
  return logs;
}

/// Every start: [floor] x [share of the first term, with two] x [exponent of each term].
std::vector<Vector> starts_of(const LossPoints& points) {
  const size_t terms = points.x.size();
  const double lowest = *std::min_element(points.loss.begin(), points.loss.end());
  const double middle = std::exp(mean_of(logs_of(points.loss)));
  std::vector<Vector> starts;
  for (const double floor_share : kFloorShares) {
    const double floor = floor_share * lowest, above = middle - floor;
    for (const double share : kTermShares) {
      if (terms == 1 && share != kTermShares[0]) continue;
      const Vector sizes = terms == 1 ? Vector{above} : Vector{share * above, (1 - share) * above};
      const size_t n = std::size(kExponents), all = terms == 1 ? n : n * n;
      for (size_t i = 0; i < all; ++i) {
        Vector start = {std::log(floor)};
        for (size_t k = 0; k < terms; ++k) {
          start.push_back(std::log(sizes[k]));
          start.push_back(kExponents[k == 0 ? i % n : i / n]);
        }
        starts.push_back(std::move(start));
      }
    }
  }
  return starts;
}

/// The law itself, and with its floor and exponents moved to either side.
std::vector<Vector> starts_near(const LossLaw& law, const LossLawObjective& objective) {
  std::vector<Vector> starts;
  constexpr std::pair<double, double> kMoves[] = {{1, 1}, {0.8, 0.6}, {1.02, 1.6}};
  for (const auto& [floor, factor] : kMoves) {
    Vector start = {std::log(std::max(law.floor * floor, 1e-30))};
    for (size_t k = 0; k < law.exponents.size(); ++k) {
      const double exponent = law.exponents[k];
      start.push_back(law.log_coefficients[k] - exponent * objective.mean_log_x(k));
      start.push_back(exponent * factor);
    }
    starts.push_back(std::move(start));
  }
  return starts;
}

LossLaw law_of(const Vector& parameters, const LossLawObjective& objective,
               const LossPoints& points) {
  LossLaw law;
  law.floor = std::exp(parameters[0]);
  for (size_t k = 0; k < points.x.size(); ++k) {
    const double exponent = parameters[2 + 2 * k];
    law.log_coefficients.push_back(parameters[1 + 2 * k] + exponent * objective.mean_log_x(k));
    law.exponents.push_back(exponent);
  }
  double squares = 0;
  Vector x(points.x.size());
  for (size_t i = 0; i < points.size(); ++i) {
    for (size_t k = 0; k < x.size(); ++k) x[k] = points.x[k][i];
    squares += std::pow(std::log(law(x) / points.loss[i]), 2);
  }
  law.rmse = std::sqrt(squares / static_cast<double>(points.size()));
  return law;
}

}  // namespace

LossPoints LossPoints::select(std::span<const size_t> runs) const {
  LossPoints chosen;
  chosen.x.resize(x.size());
  for (const size_t i : runs) {
    for (size_t k = 0; k < x.size(); ++k) chosen.x[k].push_back(x[k][i]);
    chosen.loss.push_back(loss[i]);
  }
  return chosen;
}

double huber(double r, double delta) {
  const double size = std::abs(r);
  return size <= delta ? r * r / 2 : delta * (size - delta / 2);
}

LossLawObjective::LossLawObjective(const LossPoints& points, double delta)
    : log_loss_(logs_of(points.loss)), delta_(delta) {
  for (const Vector& values : points.x) {
    Vector logs = logs_of(values);
    means_.push_back(mean_of(logs));
    for (double& value : logs) value -= means_.back();
    x_.push_back(std::move(logs));
  }
}

double LossLawObjective::operator()(std::span<const double> parameters,
                                    std::span<double> gradient) const {
  const size_t terms = x_.size();
  std::fill(gradient.begin(), gradient.end(), 0);
  Vector logs(1 + terms);  // of the floor and each term
  double sum = 0;
  for (size_t i = 0; i < log_loss_.size(); ++i) {
    logs[0] = parameters[0];
    for (size_t k = 0; k < terms; ++k)
      logs[1 + k] = parameters[1 + 2 * k] - parameters[2 + 2 * k] * x_[k][i];
    const double largest = *std::max_element(logs.begin(), logs.end());
    double total = 0;
    for (const double value : logs) total += std::exp(value - largest);
    const double r = largest + std::log(total) - log_loss_[i];
    sum += huber(r, delta_);
    const double slope = std::clamp(r, -delta_, delta_);
    const auto share = [&](size_t j) { return std::exp(logs[j] - largest) / total; };
    gradient[0] += slope * share(0);
    for (size_t k = 0; k < terms; ++k) {
      const double g = slope * share(1 + k);
      gradient[1 + 2 * k] += g;
      gradient[2 + 2 * k] -= g * x_[k][i];
    }
  }
  return sum;
}

double LossLaw::operator()(std::span<const double> x) const {
  double loss = floor;
  for (size_t k = 0; k < exponents.size(); ++k)
    loss += std::exp(log_coefficients[k] - exponents[k] * std::log(x[k]));
  return loss;
}

LossLaw fit_loss_law(const LossPoints& points, const LossLaw* near) {
  const LossLawObjective exact(points);
  // Divided by delta^2, so that L-BFGS meets numbers near 1. Wide Huber terms first: their minimum
  // is smooth, and the next one near.
  const auto descend = [&](Vector start, double delta) {
    const LossLawObjective wide(points, delta);
    const double scale = 1 / (delta * delta);
    return lbfgs(
        [&](std::span<const double> at, std::span<double> gradient) {
          const double value = wide(at, gradient);
          for (double& g : gradient) g *= scale;
          return value * scale;
        },
        std::move(start));
  };
  std::vector<Minimum> rough;
  for (Vector& start : near ? starts_near(*near, exact) : starts_of(points))
    rough.push_back(descend(std::move(start), 30 * kHuberDelta));
  std::sort(rough.begin(), rough.end(),
            [](const Minimum& a, const Minimum& b) { return a.value < b.value; });
  rough.resize(std::min(rough.size(), kPolished));
  Minimum best = rough.front();
  best.value = std::numeric_limits<double>::infinity();
  for (Minimum& start : rough) {
    Minimum closer = descend(std::move(start.at), 5 * kHuberDelta);
    Minimum found = descend(std::move(closer.at), kHuberDelta);
    if (found.value < best.value) best = std::move(found);
  }
  LossLaw law = law_of(best.at, exact, points);
  law.objective = best.value * kHuberDelta * kHuberDelta;
  return law;
}

}  // namespace tandem
