#pragma once
#include "nn/parameter.h"

// Gated retention (YOCO, sec. 3.1 and appendix): S_t = exp(a_t) S_{t-1} + k_t^T v_t, o_t = q_t S_t, with a_t <= 0 one log-decay per head and
// token. Decays are exp(c_t - c_s) of pairs, masked before the exponential: closed gates neither overflow nor give NaN. Documents are kept apart by segment
// equality in the score matrix, on the carried state and on its update.

namespace tandem {

struct Retention {
  Tensor output;       // [B, T, H, V]
  Tensor final_state;  // [B, H, K, V]
};

/// q, k: [B, T, H, K]; v: [B, T, H, V]; log_decay: [B, T, H], <= 0, in float32 (float64 for float64). segment: [B, T] int32 or undefined.
/// initial_state: [B, H, K, V] or undefined (0); initial_segment: [B] int32, the document the state belongs to (undefined: that of the first token).
/// A segment of -1 is padding: it adds nothing to the state and does not decay it. Chunkwise with `chunk` tokens; differentiable in every float input.
/// With `sequence` ranks divide the rows: all is of this rank's columns, but initial_state is that before rank 0's (the same on every rank, no gradient), initial_segment the document of the
/// newest token before this rank's own, and final_state, on every rank, that after the last rank's (no gradient). One message a pass, of a state and its decay, from each rank to all, and one of a
/// state's gradient in the backward pass; the scan over a rank's chunk states runs twice, their products once.
Retention gated_retention(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& log_decay, const Tensor& segment = {},
                          const Tensor& initial_state = {}, const Tensor& initial_segment = {}, int64_t chunk = 64, Communicator* sequence = nullptr);
/// The other two forms of the paper: token by token, and all pairs at once.
Retention gated_retention_recurrent(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& log_decay, const Tensor& segment = {},
                                    const Tensor& initial_state = {}, const Tensor& initial_segment = {});
Retention gated_retention_parallel(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& log_decay, const Tensor& segment = {},
                                   const Tensor& initial_state = {}, const Tensor& initial_segment = {});

}  // namespace tandem
