#include "eval/pareto.h"

#include <algorithm>

namespace tandem {
namespace {

/// `a` is nowhere worse than `b` and somewhere better; `costs` gives the numbers that should be
/// small.
bool dominates(const ParetoPoint& a, const ParetoPoint& b, const auto& costs) {
  const auto of_a = costs(a), of_b = costs(b);
  bool better = false;
  for (size_t i = 0; i < of_a.size(); ++i) {
    if (of_a[i] > of_b[i]) return false;
    better = better || of_a[i] < of_b[i];
  }
  return better;
}

bool is_on_front(std::span<const ParetoPoint> points, const ParetoPoint& point, const auto& costs) {
  return std::none_of(points.begin(), points.end(),
                      [&](const ParetoPoint& other) { return dominates(other, point, costs); });
}

}  // namespace

void mark_fronts(std::span<ParetoPoint> points) {
  using Costs = std::vector<double>;
  for (ParetoPoint& p : points) {
    p.on_throughput_front = is_on_front(points, p, [](const ParetoPoint& q) {
      return Costs{q.loss, -q.tokens_per_second};
    });
    p.on_memory_front = is_on_front(points, p, [](const ParetoPoint& q) {
      return Costs{q.loss, q.bytes_per_row};
    });
    p.on_front = is_on_front(points, p, [](const ParetoPoint& q) {
      return Costs{q.loss, -q.tokens_per_second, q.bytes_per_row};
    });
  }
}

}  // namespace tandem
