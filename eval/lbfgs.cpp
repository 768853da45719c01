#include "eval/lbfgs.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <limits>
#include <numeric>

namespace tandem {
namespace {

using Vector = std::vector<double>;

constexpr double kSufficientDecrease = 1e-4, kCurvature = 0.9;
constexpr int kMostTrials = 60;  // of one line search
constexpr int kPatience = 5;     // iterations of next to no decrease before it is over

double dot(const Vector& a, const Vector& b) {
  return std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
}

Vector plus(const Vector& a, double t, const Vector& b) {
  Vector sum = a;
  for (size_t i = 0; i < a.size(); ++i) sum[i] += t * b[i];
  return sum;
}

struct Point {
  Vector at, gradient;
  double value = 0;
};

struct Pair {
  Vector step, change;  // of the point and of the gradient
  double rho = 0;       // 1 / (step . change)
};

/// -H * gradient by the two loops.
Vector direction_of(const Vector& gradient, const std::deque<Pair>& pairs) {
  Vector d = plus(Vector(gradient.size(), 0), -1, gradient);
  Vector alphas;
  for (auto pair = pairs.rbegin(); pair != pairs.rend(); ++pair) {
    alphas.push_back(pair->rho * dot(pair->step, d));
    d = plus(d, -alphas.back(), pair->change);
  }
  if (!pairs.empty()) {
    const Pair& last = pairs.back();
    const double scale = 1 / (last.rho * dot(last.change, last.change));
    for (double& x : d) x *= scale;
  }
  for (const Pair& pair : pairs) {
    d = plus(d, alphas.back() - pair.rho * dot(pair.change, d), pair.step);
    alphas.pop_back();
  }
  return d;
}

}  // namespace

Minimum lbfgs(const Objective& objective, Vector start, const LbfgsOptions& options) {
  const auto look = [&](Vector at) {
    Point point{std::move(at), {}, 0};
    point.gradient.resize(point.at.size());
    point.value = objective(point.at, point.gradient);
    return point;
  };
  Point now = look(std::move(start));
  std::deque<Pair> pairs;
  int idle = 0, iteration = 0;
  for (; iteration < options.max_iterations && idle < kPatience; ++iteration) {
    double steepest = 0;
    for (const double g : now.gradient) steepest = std::max(steepest, std::abs(g));
    if (steepest <= options.gradient_tolerance * std::max(1.0, std::abs(now.value))) break;
    Vector d = direction_of(now.gradient, pairs);
    double slope = dot(d, now.gradient);
    if (!(slope < 0)) {  // the pairs no longer fit: begin anew
      pairs.clear();
      d = direction_of(now.gradient, pairs);
      slope = dot(d, now.gradient);
    }
    // Without pairs d has the gradient's length, which says nothing about a step's.
    double t = pairs.empty() ? 0.1 / std::sqrt(-slope) : 1, low = 0;
    double high = std::numeric_limits<double>::infinity();
    Point next;
    bool found = false;
    for (int trial = 0; trial < kMostTrials; ++trial) {  // bisection (Burke, Lewis and Overton)
      next = look(plus(now.at, t, d));
      if (!(next.value <= now.value + kSufficientDecrease * t * slope)) {
        high = t;
      } else {
        found = true;
        if (dot(d, next.gradient) >= kCurvature * slope) break;
        low = t;
      }
      t = std::isinf(high) ? 2 * t : (low + high) / 2;
    }
    if (!found || !(next.value < now.value)) {
      if (pairs.empty()) break;  // not even along the gradient
      pairs.clear();
      ++idle;
      continue;
    }
    Pair pair{plus(next.at, -1, now.at), plus(next.gradient, -1, now.gradient), 0};
    const double curvature = dot(pair.step, pair.change);
    if (curvature > 1e-14 * std::sqrt(dot(pair.step, pair.step) * dot(pair.change, pair.change))) {
      pair.rho = 1 / curvature;
      pairs.push_back(std::move(pair));
      if (static_cast<int>(pairs.size()) > options.history) pairs.pop_front();
    }
    const double decrease = now.value - next.value;
    idle = decrease <= options.decrease_tolerance * std::abs(now.value) ? idle + 1 : 0;
    now = std::move(next);
  }
  return {std::move(now.at), now.value, iteration};
}

}  // namespace tandem
