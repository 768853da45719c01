#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "core/random.h"
#include "eval/power_law.h"

namespace tandem {

/// Where NLL by position is cut: position t is the target behind t + 1 inputs.
struct CurveGrid {
  std::vector<int64_t> buckets;  // edges, 0 to positions; bucket i is [buckets[i], buckets[i + 1])
  std::vector<int64_t> lengths;  // 1, 2, 4, ... and positions: where the cumulative mean is given
  std::vector<int64_t> edges;    // both together: what sums are kept between
  /// `scale` linear: buckets of one width; log: each as many times as long as the one before, as
  /// far as they hold a position; then there may be fewer than `n_buckets`.
  CurveGrid(int64_t positions, int64_t n_buckets, const std::string& scale);
  size_t intervals() const { return edges.size() - 1; }
};

/// Sums of NLL over targets, by position and by group: some windows or documents that follow one
/// another, which are drawn together where the spread of a curve is asked for.
class NllSums {
 public:
  /// `block_length`: also by position in a block, of `padding` columns in front; 1 = not.
  NllSums(const CurveGrid& grid, int64_t groups, int64_t block_length = 1, int64_t padding = 0);
  void add(int64_t group, int64_t position, double nll);
  /// The groups of `other` come behind these. Of the same grid and blocks.
  NllSums& operator+=(const NllSums& other);

  double nll() const;     ///< sum
  int64_t count() const;  ///< of targets
  int64_t groups() const { return groups_; }
  nlohmann::ordered_json by_bucket() const;   ///< [{begin, end, nll, tokens_scored}]
  nlohmann::ordered_json cumulative() const;  ///< [{end, nll, tokens_scored}]: positions [0, end)
  nlohmann::ordered_json by_block_position() const;  ///< mean NLL; null where none is scored
  std::vector<int64_t> counts_by_block_position() const;
  /// L(n) = a n^-b + c through the `curve`: "buckets", each at the mean of its targets' numbers of
  /// inputs and weighing as many targets as it holds, or "cumulative", all points alike.
  /// Intervals by drawing groups anew, which are groups of `unit`: "windows".
  nlohmann::ordered_json fit(const std::string& curve, const std::string& unit, int64_t resamples,
                             const RandomStream& random) const;

 private:
  struct Sum {
    double nll = 0;
    int64_t count = 0;
  };
  using Sums = std::vector<Sum>;  // [intervals]
  Sums of_groups(std::span<const int64_t> times) const;
  Sums of_all() const;
  Sum between(const Sums& sums, int64_t begin, int64_t end) const;  // positions; both are edges
  CurveGrid grid_;
  int64_t groups_, block_length_, padding_;
  Sums sums_;   // [groups, intervals]
  Sums slots_;  // [block_length]
};

}  // namespace tandem
