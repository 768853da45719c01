#pragma once
#include <string>
#include <vector>

#include "nn/batch.h"
#include "nn/cost.h"
#include "nn/forward_context.h"
#include "nn/kv_cache.h"

// Rows divided over ranks ("chunk parallelism" of the YOCO paper): rank r of n holds columns [r T, (r + 1) T) of rows of n T columns, T on every rank. All but the mixing along the
// sequence is a rank's own business. Of the ranks before it retention needs one state, a window its last keys, full attention all keys; the cross-decoder's are gathered once.
// Every rank runs the same collectives in the same order, in the backward pass too. A rank's loss is that of its own targets; gradients of parameters are summed over ranks by whoever trains.

namespace tandem {

/// Whether context.sequence divides rows.
bool is_divided(const ForwardContext& context);
/// Which part of its rows a rank of `sequence` (nullptr = none) holds.
RowPart part_of(const Communicator* sequence);

/// x: [B, T, ...] -> [B, n T, ...], the columns of all ranks in order. Gradients are summed over ranks in float32 (float64 for float64).
Tensor gather_columns(const Tensor& x, Communicator& sequence);
/// x: [B, T, ...] -> [B, min(width, r T) + T, ...]: in front the last `width` columns of the ranks before, as far as there are any. They come by shifts to the neighbour, as many as they are
/// ranks away; gradients go back the same way.
Tensor with_columns_before(const Tensor& x, int64_t width, Communicator& sequence);
/// y, as something that `gathered` has a part in: with gradient 0. The backward pass of a collective waits for all ranks, so each must come to it, even one whose output did not depend on its result.
Tensor depending_on(const Tensor& y, const Tensor& gathered);

/// What the ranks' chunks make of a state that passes through them in turn: rank j turns S into kept_j S + added_j.
struct StatePassages {
  Tensor kept;   // [n, B, H]
  Tensor added;  // [n, B, H, K, V]
  /// The state that rank `rank` is given, that before rank 0 being 0; of rank n the last one, [B, H, K, V].
  Tensor before(int64_t rank) const;
};
/// kept: [B, H], added: [B, H, K, V] of each rank, in one message.
StatePassages gather_passages(const Tensor& kept, const Tensor& added, Communicator& sequence);
/// The way back: gradient [B, H, K, V] of the state that this rank leaves, out of the gradients of the states that each rank is given as far as its own outputs go (`given`: [B, H, K, V]), which are
/// gathered. kept: [n, B, H].
Tensor gradient_of_left_state(const Tensor& kept, const Tensor& given, Communicator& sequence);

/// [B] int32, the document of the newest token before column `begin` of row_segment [B, n T] that is not padding; -1 = there is none. Undefined as row_segment is.
Tensor segment_before(const Tensor& row_segment, int64_t begin);
/// [B, S] int32, segment of the last S columns up to the end of this rank's; undefined where the rows are one document each.
Tensor segment_up_to_here(const ForwardContext& context, int64_t n_columns);

/// Inference: lengths [B] of whole rows, n_tokens columns on each rank, and the position of their first column, [B, 1].
Tensor row_lengths_of(const ForwardContext& context, int64_t n_tokens);
Tensor first_position(const ForwardContext& context);
/// This rank's columns of a call's tokens [B, T] (or targets), filled up with `filler` to T divided by the ranks, rounded up.
Tensor own_columns(const Tensor& x, const Communicator& sequence, int64_t filler);
/// For queries of this call's columns into a cache that holds them; whoever divides the rows.
AttendMask mask_of(const KvCache& cache, const ForwardContext& context);
/// Appends the keys and values k, v [B, T, G, K] of all ranks to a cache that each of them holds whole.
void append_columns(KvCache& cache, const Tensor& k, const Tensor& v, const ForwardContext& context);

/// Share of all (query, key) pairs of causal attention over `length` tokens that each rank computes: about (2 r + 1) / n^2.
std::vector<double> causal_shares(int64_t ranks, int64_t length);
/// For the log of a run: how unevenly the ranks share causal attention, "the last of 4 ranks computes 43.7% of the (query, key) pairs of causal attention, the first 6.3%; an even share is 25.0%".
std::string imbalance_message(int64_t ranks, int64_t length);

/// For the log of a run: "each rank sends 21,504 bytes a micro-batch to the others: self_decoder 3,072, shared_kv 18,432".
std::string bytes_message(const SequenceBytes& bytes);

/// Bytes that a rank sends for gather_columns of keys and values of `width` channels each: in activations, `passes` times, and their gradients once.
double key_value_gather_bytes(const SequencePass& pass, int64_t width, int64_t passes);
/// Bytes that a rank sends for with_columns_before, pass.passes() times, and its way back, of columns [B, ...] of `column_bytes`.
double columns_before_bytes(const SequencePass& pass, int64_t width, double column_bytes);

}  // namespace tandem
