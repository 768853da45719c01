#pragma once
#include <cstdint>
#include <optional>
#include <vector>

namespace tandem {

/// Tells losses that jump out of their recent past. A loss is a spike when it lies above the median
/// of the last `window` accepted losses by more than `threshold` robust standard deviations (1.4826
/// times the median absolute deviation, at least 0.2 % of the median, so that a flat stretch does
/// not make every ripple a spike). Before `window` losses were accepted nothing is one.
class SpikeDetector {
 public:
  SpikeDetector(int64_t window, double threshold);
  /// A loss above this is a spike; absent while too few were seen.
  std::optional<double> limit() const;
  /// Takes the loss of a step that was neither skipped nor a spike.
  void accept(double loss);
  /// What a checkpoint holds: the accepted losses that limit() looks back on, oldest first.
  const std::vector<double>& losses() const { return losses_; }
  void restore(std::vector<double> losses);

 private:
  int64_t window_;
  double threshold_;
  std::vector<double> losses_;  // at most window_, oldest first
};

}  // namespace tandem
