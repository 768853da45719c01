#include "eval/bootstrap.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace tandem {

std::vector<size_t> resample(size_t n, const RandomStream& stream, uint64_t b) {
  const RandomStream own = stream.fork(b);
  std::vector<size_t> runs(n);
  for (size_t i = 0; i < n; ++i) runs[i] = own.below(i, n);
  std::sort(runs.begin(), runs.end());
  return runs;
}

double quantile(std::span<const double> sorted, double q) {
  const double at = q * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(at);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  const double part = at - static_cast<double>(below);
  if (part == 0 || sorted[below] == sorted[above]) return sorted[below];  // infinite ones as well
  return (1 - part) * sorted[below] + part * sorted[above];
}

Interval percentile_interval(std::vector<double> values, double level) {
  std::sort(values.begin(), values.end());
  return {quantile(values, (1 - level) / 2), quantile(values, (1 + level) / 2)};
}

Bootstrap bootstrap(
    size_t n, int64_t resamples, double level, const RandomStream& stream,
    const std::function<std::vector<double>(std::span<const size_t> runs)>& estimate) {
  std::vector<std::vector<double>> values;  // of each number, over the resamples
  Bootstrap made;
  for (int64_t b = 0; b < resamples; ++b) {
    const auto runs = resample(n, stream, static_cast<uint64_t>(b));
    const auto numbers = estimate(runs);
    if (numbers.empty()) continue;
    ++made.good;
    values.resize(numbers.size());
    for (size_t k = 0; k < numbers.size(); ++k) values[k].push_back(numbers[k]);
  }
  for (auto& sample : values)
    made.intervals.push_back(percentile_interval(std::move(sample), level));
  return made;
}

}  // namespace tandem
