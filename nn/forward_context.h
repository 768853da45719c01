#pragma once
#include <torch/types.h>

#include "core/random.h"
#include "nn/parameter.h"

namespace tandem {

class Communicator;
class LayerRunner;

/// Of one pass through one stack. Layers only read it; those that may be run again keep a copy.
struct ForwardContext {
  Tensor segment;    // [B, T] int32, the document of the row a token belongs to, -1 = padding; undefined = each row is one document without padding
  Tensor key_segment;  // [B, T] int32, the same of tokens as keys of full attention, where it differs: a token that sees but is not seen; undefined = segment
  Tensor positions;  // [B, T] int64; restart where documents are masked; in inference they continue the state's lengths
  Tensor lengths;    // [B] int64, valid tokens of this call (inference); rows are right-padded; undefined = all T
  Tensor samples;    // [B] int64, as in Batch; undefined in inference
  Tensor wanted;     // [B, N] int64, the columns whose outputs Want::kSome asks for
  Tensor columns;    // [B, T] int64, which columns of the call these tokens were; undefined = all of them. Set by at()
  RandomStream random;                 // a draw names purpose, layer, element: recomputing draws the same numbers
  Communicator* sequence = nullptr;    // ranks that divide each row (nn/sequence_parallel.h); nullptr or a group of one = none
  Tensor row_segment;  // [B, n T] int32, `segment` of the whole rows that n ranks divide; undefined where that is
  Tensor row_lengths;  // [B] int64, `lengths` of the whole rows that n ranks divide (inference); undefined = all n T
  LayerRunner* runner = nullptr;       // nullptr = run plainly
  bool training = false;               // the only training flag

  /// The same for some tokens of the call: columns [B, N] int64; positions, segment and columns of the result are [B, N], lengths undefined.
  ForwardContext at(const Tensor& columns) const;
  /// The same for each row's last valid token: positions and segment [B, 1], lengths all 1. Where ranks divide the rows it is the same on all (inference).
  ForwardContext at_last() const;
};

/// x: [B, T] or [B, T, D] -> [B, N] or [B, N, D], at columns [B, N] of each row.
Tensor at_columns(const Tensor& x, const Tensor& columns);

/// x: [B, T, D] -> [B, 1, D], the row's last valid token (lengths - 1, or T - 1 without lengths); of a row of length 0 its first column, which means nothing.
/// Where ranks divide the rows the rank that holds it gives it to all (inference: no gradient).
Tensor last_of_each_row(const Tensor& x, const ForwardContext& context);

}  // namespace tandem
