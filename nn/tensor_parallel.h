#pragma once
#include "nn/parameter.h"

namespace tandem {

// Tensor parallelism (Megatron-LM, arXiv 1909.08053, sec. 3): ranks of one group hold the same activations between layers and divide heads and inner widths inside them. A divided
// computation begins with copy_to_group(x), goes through matrices cut by rows (Split::kRows) and ends with a matrix cut by columns and sum_over_group(), which Linear calls.
// What is not divided is computed by all ranks alike, so its gradients are equal without being summed. A group that is nullptr or of one rank changes nothing.

/// x as it is; its gradient, of which each rank finds a part, is summed over `group`. One all-reduce in the backward pass, however many matrices read the result.
Tensor copy_to_group(const Tensor& x, Communicator* group);
/// The sum of the group's x; the gradient of the sum is every part's. One all-reduce in the forward pass.
Tensor sum_over_group(const Tensor& x, Communicator* group);

/// Units [begin, end) of `units` that rank `rank` of `ranks` holds: [rank U / n, (rank + 1) U / n).
struct UnitRange {
  int64_t begin = 0, end = 0;
};
UnitRange units_of_rank(int64_t units, int64_t rank, int64_t ranks);

/// Which rows of a matrix this rank holds, where ranks divide a vocabulary: rows of an embedding table or of a head.
struct HeldRows {
  Communicator* group = nullptr;  // nullptr: this rank holds all
  int64_t begin = 0;              // the first it holds
  int64_t count = 0;              // of all ranks together; set where `group` is
};
/// Logits of this rank's rows [..., v] -> of all rows [..., V], the same on every rank. No gradient.
Tensor gather_logits(const Tensor& logits, const HeldRows& part);

}  // namespace tandem
