#pragma once
#include <cstdint>
#include <vector>

#include "comm/communicator.h"
#include "nn/parameter.h"

namespace tandem {

/// A sum over the micro-batches of a step whose rounding depends on their number alone, not on who had which. Node (level, index) of a binary tree over `leaves`
/// numbers is leaf `index` at level 0 and node (level - 1, 2 index) + node (level - 1, 2 index + 1) above; where there is no right one the left one stands for both. A rank
/// adds its leaves up to the largest whole nodes among them; these go, a part of each to each rank, to the ranks that finish the tree for that part.
class TreeSum {
 public:
  explicit TreeSum(int64_t leaves) : leaves_(leaves) {}
  /// Leaf number `leaf`, one more than the one before it. Copies `values`, the same shapes each time.
  void add(int64_t leaf, const Tensors& values);
  /// Fills `out` with the root over the leaves of all ranks of `group`: rank r of n added leaves [r leaves / n, (r + 1) leaves / n).
  void finish(Communicator& group, Tensors& out);

 private:
  struct Node {
    int64_t level, index;
    Tensors values;
  };
  int64_t leaves_;
  std::vector<Node> nodes_;  // ascending, no two of them siblings
};

}  // namespace tandem
