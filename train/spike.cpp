#include "train/spike.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

namespace tandem {
namespace {

constexpr double kMadOfNormal = 1.4826;    // standard deviation over MAD of a normal distribution
constexpr double kLeastDeviation = 0.002;  // of the median

/// The middle value, or the mean of the two in the middle. `values`, which is not empty, comes back
/// in another order.
double median(std::vector<double>& values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  if (values.size() % 2 == 1) return *middle;
  return (*std::max_element(values.begin(), middle) + *middle) / 2;
}

}  // namespace

SpikeDetector::SpikeDetector(int64_t window, double threshold)
    : window_(window), threshold_(threshold) {
  if (window < 1) throw std::logic_error("SpikeDetector: window " + std::to_string(window));
}

std::optional<double> SpikeDetector::limit() const {
  if (static_cast<int64_t>(losses_.size()) < window_) return std::nullopt;
  std::vector<double> values = losses_;
  const double center = median(values);
  for (double& value : values) value = std::abs(value - center);
  const double deviation =
      std::max(kMadOfNormal * median(values), kLeastDeviation * std::abs(center));
  return center + threshold_ * deviation;
}

void SpikeDetector::accept(double loss) {
  if (!std::isfinite(loss)) throw std::logic_error("SpikeDetector: accepts finite losses only");
  losses_.push_back(loss);
  if (static_cast<int64_t>(losses_.size()) > window_) losses_.erase(losses_.begin());
}

void SpikeDetector::restore(std::vector<double> losses) {
  const auto most = static_cast<size_t>(window_);
  if (losses.size() > most)  // of a run with a longer window
    losses.erase(losses.begin(), losses.end() - static_cast<std::ptrdiff_t>(most));
  losses_ = std::move(losses);
}

}  // namespace tandem
