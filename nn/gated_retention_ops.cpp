// The three forms of gated retention as functions of tensors. Notation, per row and head: a_t is
// the log-decay, c_t its inclusive sum within a chunk, R the state before the chunk, R' the state
// after.
//   D_ij = exp(c_i - c_j) where query i sees key j, else 0;  D_C its last row
//   b_i  = exp(c_i) where query i sees R, else 0;            b_C its last element
//   o_i  = sum_j (q_i k_j) D_ij v_j + b_i q_i R
//   R'   = b_C R + sum_j D_Cj k_j^T v_j
// Backward, with G the gradient of R', A = (Q K^T) * D, dA = dO V^T, dS = dA * D, P = dA * A
// (* elementwise):
//   dQ = dS K + b * (dO R^T)
//   dK = dS^T Q + D_C * (V G^T)
//   dV = A^T dO + D_C * (K G)
//   dR = b_C G + Q^T (b * dO)
//   dc_i = sum_j P_ij - sum_j P_ji + q_i (b_i dO_i R^T) - k_i (D_Ci v_i G^T), and at the end of the
//   chunk also sum_j k_j (D_Cj v_j G^T) + b_C <R, G>
// Where ranks divide a row, each scans its chunks from R = 0, which gives what it adds to a state;
// the product of its b_C is what it keeps of one. Gathered from all, they give each rank the R that
// it begins with; likewise the G that it ends with, out of the gradients of every rank's first R
// (nn/sequence_parallel).
// c_i - c_i is 0 whatever the gates, so the pairs (i, i) are left out of dc: they would cancel only
// up to rounding, and drown the gradients of closed gates.
#include "nn/gated_retention_ops.h"

#include <limits>
#include <optional>

#include "comm/communicator.h"
#include "nn/held_group.h"
#include "nn/sequence_parallel.h"

namespace tandem {
namespace {

Tensor transposed(const Tensor& x) { return x.transpose(-1, -2); }
/// A B + out, in place, over any number of leading dimensions.
void add_matmul(Tensor& out, const Tensor& a, const Tensor& b) {
  out.flatten(0, -3).baddbmm_(a.flatten(0, -3), b.flatten(0, -3));
}
/// Inclusive sums along the last dimension, from its beginning or its end. On a GPU by a product
/// with ones, as LibTorch takes its cumsum there to be not deterministic and refuses it in
/// training.
Tensor running_sum(const Tensor& x) {
  if (!x.is_cuda()) return x.cumsum(-1);
  return x.matmul(torch::ones({x.size(-1), x.size(-1)}, x.options()).triu());
}
Tensor running_sum_from_end(const Tensor& x) {
  if (!x.is_cuda()) return x.flip(-1).cumsum(-1).flip(-1);
  return x.matmul(torch::ones({x.size(-1), x.size(-1)}, x.options()).tril());
}
Tensor row_dot(const Tensor& x, const Tensor& y) { return (x * y).sum(-1); }

/// Which document each token belongs to, counted in the order in which a row's state passes through
/// them: 0 is that of the initial state.
struct Documents {
  Tensor run;    // [B, T] int64, of the last token that is not padding
  Tensor valid;  // [B, T] bool, not padding
  Tensor start;  // [B, T] bool, a document's first token
};

Documents documents_of(const Tensor& segment, const Tensor& initial_segment) {
  const auto index = torch::arange(segment.size(1), segment.options().dtype(torch::kInt64));
  const auto valid = segment >= 0;
  // [B, T], the newest valid token up to t and up to t - 1; -1 = none
  const auto last = std::get<0>(torch::where(valid, index, -1).cummax(1));
  const auto before = torch::constant_pad_nd(last.slice(1, 0, -1), {1, 0}, -1);
  const auto first =
      initial_segment.defined() ? initial_segment.unsqueeze(1).to(segment.dtype()) : segment;
  const auto previous = torch::where(before >= 0, segment.gather(1, before.clamp_min(0)), first);
  const auto start = valid & (previous != segment);
  return {start.cumsum(1), valid, start};
}

/// What all forms share: the documents, and log-decays that are 0 where nothing may decay (padding)
/// or nothing is left to decay (a first token), so that those gates get gradient 0 exactly.
struct Prepared {
  Tensor log_decay;     // [B, T, H]
  Documents documents;  // undefined tensors when all is one document
};

/// `continues`: a state comes before the first token.
Prepared prepare(const Tensor& log_decay, const Tensor& segment, bool continues,
                 const Tensor& initial_segment) {
  if (!segment.defined()) {
    if (continues) return {log_decay, {}};
    return {torch::constant_pad_nd(log_decay.slice(1, 1), {0, 0, 1, 0}), {}};
  }
  const auto no_state = torch::full({segment.size(0)}, -1, segment.options());
  const auto documents = documents_of(segment, continues ? initial_segment : no_state);
  return {log_decay.masked_fill((documents.start | ~documents.valid).unsqueeze(-1), 0), documents};
}

void check(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& log_decay,
           const Tensor& segment, const Tensor& initial_state) {
  TORCH_CHECK(q.dim() == 4 && k.sizes() == q.sizes() && v.dim() == 4 &&
                  v.sizes().slice(0, 3) == q.sizes().slice(0, 3),
              "gated_retention: q ", q.sizes(), ", k ", k.sizes(), ", v ", v.sizes(),
              ", expected [B, T, H, K] twice and [B, T, H, V]");
  TORCH_CHECK(log_decay.sizes() == q.sizes().slice(0, 3), "gated_retention: log_decay ",
              log_decay.sizes(), ", expected [B, T, H] of q ", q.sizes());
  TORCH_CHECK(q.size(1) > 0, "gated_retention: no tokens");
  TORCH_CHECK(!segment.defined() || segment.sizes() == q.sizes().slice(0, 2),
              "gated_retention: segment ", segment.sizes(), ", expected [B, T] of q ", q.sizes());
  TORCH_CHECK(
      !initial_state.defined() ||
          initial_state.sizes() == torch::IntArrayRef({q.size(0), q.size(2), q.size(3), v.size(3)}),
      "gated_retention: initial_state ", initial_state.sizes(), ", expected [B, H, K, V] of q ",
      q.sizes(), " and v ", v.sizes());
}

/// [B, H, K, V]
Tensor first_state(const Tensor& q, const Tensor& v, const Tensor& log_decay,
                   const Tensor& initial_state) {
  if (initial_state.defined()) return initial_state.to(log_decay.dtype());
  return torch::zeros({q.size(0), q.size(2), q.size(3), v.size(3)}, log_decay.options());
}

/// out[n + 1] = carried[n] out[n] + added[n] from out[0] on. out: [N + 1, B, H, K, V];
/// added: [N, B, H, K, V]; carried: [N, B, H].
void scan(const Tensor& out, const Tensor& added, const Tensor& carried) {
  for (int64_t n = 0; n < added.size(0); ++n) {
    auto next = out[n + 1];
    torch::addcmul_out(next, added[n], out[n], carried[n].unsqueeze(-1).unsqueeze(-1));
  }
}
/// The same from the end: out[n] = carried[n] out[n + 1] + added[n].
void scan_back(const Tensor& out, const Tensor& added, const Tensor& carried) {
  for (int64_t n = added.size(0) - 1; n >= 0; --n) {
    auto previous = out[n];
    torch::addcmul_out(previous, added[n], out[n + 1], carried[n].unsqueeze(-1).unsqueeze(-1));
  }
}

/// All chunks at once but for the scan over their states. The backward pass is written out: it
/// keeps two score matrices instead of five.
struct Chunks : torch::autograd::Function<Chunks> {
  /// q, k: [N, B, H, C, K]; v: [N, B, H, C, V]; a: [N, B, H, C]; initial: [B, H, K, V].
  /// hidden, dropped: see Masks. sequence: ranks that divide the rows, or nullptr; `initial` is
  /// then rank 0's. -> o [N, B, H, C, V], final state [B, H, K, V].
  static torch::autograd::variable_list forward(torch::autograd::AutogradContext* ctx,
                                                const Tensor& q, const Tensor& k, const Tensor& v,
                                                const Tensor& a, const Tensor& hidden,
                                                const std::optional<Tensor>& dropped,
                                                const Tensor& initial, Communicator* sequence) {
    const int64_t n_chunks = q.size(0);
    const auto c = running_sum(a);
    const auto pairs = (c.unsqueeze(-1) - c.unsqueeze(-2))
                           .masked_fill_(hidden, -std::numeric_limits<double>::infinity())
                           .exp_()
                           .to(q.dtype());
    const auto to_end = pairs.select(-2, -1).unsqueeze(-1);  // [N, B, H, C, 1], D_C
    auto carried = c.exp();                                  // [N, B, H, C], b
    if (dropped) carried.masked_fill_(*dropped, 0);

    const auto added = transposed(k).matmul(v * to_end).to(a.dtype());  // [N, B, H, K, V]
    auto sizes = added.sizes().vec();
    sizes[0] = n_chunks + 1;
    const auto states = torch::empty(sizes, added.options());  // before each chunk, after the last
    const auto kept = carried.select(-1, -1);                  // [N, B, H], b_C
    states[0].copy_(initial);
    scan(states, added, kept);
    Tensor kept_by_rank, final_state;
    if (sequence) {
      const auto passages = gather_passages(kept.prod(0), states[n_chunks], *sequence);
      if (sequence->rank() > 0) {
        states[0].copy_(passages.before(sequence->rank()));
        scan(states, added, kept);
      }
      kept_by_rank = passages.kept.contiguous();
      final_state = passages.before(sequence->size());
      hold_group(ctx, sequence);
      ctx->mark_non_differentiable({final_state});
    } else {
      final_state = states[n_chunks].clone();
    }

    const auto scores = q.matmul(transposed(k)).mul_(pairs);
    auto o = q.matmul(states.slice(0, 0, n_chunks).to(q.dtype()))
                 .mul_(carried.to(q.dtype()).unsqueeze(-1));
    add_matmul(o, scores, v);
    ctx->save_for_backward({q, k, v, pairs, scores, carried, states, kept_by_rank});
    return {o, final_state};
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const Tensor &q = saved[0], &k = saved[1], &v = saved[2], &pairs = saved[3], &scores = saved[4],
                 &carried = saved[5], &states = saved[6], &kept_by_rank = saved[7];
    const int64_t n_chunks = q.size(0);
    const auto d_o = grads[0].contiguous();
    const auto to_end = pairs.select(-2, -1).unsqueeze(-1);
    const auto across = d_o * carried.to(q.dtype()).unsqueeze(-1);  // [N, B, H, C, V], b dO

    const auto d_incoming = transposed(q).matmul(across).to(states.dtype());
    const auto d_states = torch::empty_like(states);
    const auto kept = carried.select(-1, -1);
    Communicator* const sequence = kept_by_rank.defined() ? held_group(ctx) : nullptr;
    if (sequence) {
      d_states[n_chunks].zero_();
    } else {
      d_states[n_chunks].copy_(grads[1]);
    }
    scan_back(d_states, d_incoming, kept);
    if (sequence) {
      d_states[n_chunks].copy_(gradient_of_left_state(kept_by_rank, d_states[0], *sequence));
      if (sequence->rank() + 1 < sequence->size()) scan_back(d_states, d_incoming, kept);
    }
    const auto incoming = states.slice(0, 0, n_chunks), d_outgoing = d_states.slice(0, 1);
    const auto g = d_outgoing.to(q.dtype());

    auto d_q = across.matmul(transposed(incoming.to(q.dtype())));
    auto d_k = v.matmul(transposed(g)).mul_(to_end);
    auto d_v = k.matmul(g).mul_(to_end);
    auto d_scores = d_o.matmul(transposed(v));
    // The parts of dc nearly cancel: they are formed in the states' type.
    const auto wide = states.scalar_type();
    const auto d_c = decay_gradient(row_dot(q.to(wide), d_q), row_dot(k.to(wide), d_k),
                                    d_scores.to(wide) * scores);
    d_c.select(-1, -1).add_((incoming * d_outgoing).sum({-2, -1}) * carried.select(-1, -1));

    d_scores.mul_(pairs);
    add_matmul(d_q, d_scores, k);
    add_matmul(d_k, transposed(d_scores), q);
    add_matmul(d_v, transposed(scores), d_o);
    return {d_q, d_k, d_v, running_sum_from_end(d_c), {}, {}, d_states[0], {}};
  }

 private:
  /// dc [N, B, H, C] from its parts: queries with the incoming state, keys with the outgoing one,
  /// and pairs within the chunk.
  static Tensor decay_gradient(const Tensor& queries, const Tensor& keys, const Tensor& pairs) {
    pairs.diagonal(0, -2, -1).zero_();
    keys.select(-1, -1).zero_();
    const auto d_c = queries + pairs.sum(-1) - pairs.sum(-2) - keys;
    d_c.select(-1, -1).add_(keys.sum(-1));
    return d_c;
  }
};

int64_t ceil_divide(int64_t a, int64_t b) { return (a + b - 1) / b; }

/// x: [B, T, ...] -> [B, N * C, ...], zeros in front. Behind, they would make a pair of the last
/// key and a later end of the chunk, undecayed, which cancels in dc only up to rounding.
Tensor padded(const Tensor& x, int64_t length) {
  std::vector<int64_t> pads(2 * (x.dim() - 1), 0);
  pads[pads.size() - 2] = length - x.size(1);
  return length == x.size(1) ? x : torch::constant_pad_nd(x, pads);
}

/// [B, T, H, ...] -> [N, B, H, C, ...]
Tensor chunked(const Tensor& x, int64_t n_chunks, int64_t chunk) {
  // [B, N, C, H, ...]
  const auto parts = padded(x, n_chunks * chunk).unflatten(1, {n_chunks, chunk});
  return (x.dim() == 4 ? parts.permute({1, 0, 3, 2, 4}) : parts.permute({1, 0, 3, 2})).contiguous();
}

/// [B, T] -> [N, B, C]
Tensor chunked_rows(const Tensor& x, int64_t n_chunks, int64_t chunk) {
  return padded(x, n_chunks * chunk).unflatten(1, {n_chunks, chunk}).transpose(0, 1);
}

struct Masks {
  Tensor hidden;                  // bool, broadcasts to [N, B, H, C, C]: pairs that do not meet
  std::optional<Tensor> dropped;  // bool [N, B, 1, C]: queries that do not see the incoming state
};

Masks masks_of(const Documents& documents, int64_t n_chunks, int64_t chunk, torch::Device device) {
  const auto later = torch::ones({chunk, chunk}, torch::dtype(torch::kBool).device(device)).triu(1);
  if (!documents.run.defined()) return {later, std::nullopt};
  const auto run = chunked_rows(documents.run, n_chunks, chunk);      // [N, B, C]
  const auto valid = chunked_rows(documents.valid, n_chunks, chunk);  // [N, B, C]
  const auto apart = run.unsqueeze(-1) != run.unsqueeze(-2);          // [N, B, C, C]
  // [N, B, 1], the run whose state a chunk is given: where the chunk before it ended
  const auto incoming =
      torch::constant_pad_nd(run.slice(0, 0, -1).slice(2, -1), {0, 0, 0, 0, 1, 0});
  return {(later | apart | ~valid.unsqueeze(-2)).unsqueeze(2), (run != incoming).unsqueeze(2)};
}

}  // namespace

Retention gated_retention(const Tensor& q, const Tensor& k, const Tensor& v,
                          const Tensor& log_decay, const Tensor& segment,
                          const Tensor& initial_state, const Tensor& initial_segment, int64_t chunk,
                          Communicator* sequence) {
  check(q, k, v, log_decay, segment, initial_state);
  TORCH_CHECK(chunk > 0, "gated_retention: chunk ", chunk, ", expected at least 1");
  const int64_t n_tokens = q.size(1);
  if (sequence && sequence->size() == 1) sequence = nullptr;
  TORCH_CHECK(!sequence || !initial_state.defined() || !initial_state.requires_grad(),
              "gated_retention: no gradient of the initial state where ranks divide the rows");
  if (n_tokens == 1 && !sequence) {
    return gated_retention_recurrent(q, k, v, log_decay, segment, initial_state, initial_segment);
  }
  // Chunks of equal length, no longer than asked for, need little padding.
  const int64_t n_chunks = ceil_divide(n_tokens, chunk), length = ceil_divide(n_tokens, n_chunks);
  const bool follows = sequence && sequence->rank() > 0;  // another rank's columns
  const bool continues = follows || initial_state.defined();
  const auto [decay, documents] = prepare(log_decay, segment, continues, initial_segment);
  const auto first = first_state(q, v, log_decay, follows ? Tensor() : initial_state);
  const auto masks = masks_of(documents, n_chunks, length, q.device());
  const auto out = Chunks::apply(chunked(q, n_chunks, length), chunked(k, n_chunks, length),
                                 chunked(v, n_chunks, length), chunked(decay, n_chunks, length),
                                 masks.hidden, masks.dropped, first, sequence);
  const auto o =
      out[0].permute({1, 0, 3, 2, 4}).reshape({q.size(0), n_chunks * length, q.size(2), v.size(3)});
  return {o.slice(1, n_chunks * length - n_tokens), out[1]};
}

Retention gated_retention_parallel(const Tensor& q, const Tensor& k, const Tensor& v,
                                   const Tensor& log_decay, const Tensor& segment,
                                   const Tensor& initial_state, const Tensor& initial_segment) {
  return gated_retention(q, k, v, log_decay, segment, initial_state, initial_segment,
                         /*chunk=*/q.size(1));
}

Retention gated_retention_recurrent(const Tensor& q, const Tensor& k, const Tensor& v,
                                    const Tensor& log_decay, const Tensor& segment,
                                    const Tensor& initial_state, const Tensor& initial_segment) {
  check(q, k, v, log_decay, segment, initial_state);
  const auto [log_decays, documents] =
      prepare(log_decay, segment, initial_state.defined(), initial_segment);
  const auto type = log_decay.scalar_type();
  auto decay = log_decays.exp();  // [B, T, H]
  auto keys = k.to(type);
  if (documents.start.defined()) {
    decay = decay.masked_fill(documents.start.unsqueeze(-1), 0);
    keys = keys.masked_fill(~documents.valid.unsqueeze(-1).unsqueeze(-1), 0);
  }
  const auto queries = q.to(type), values = v.to(type);
  Tensor state = first_state(q, v, log_decay, initial_state);  // [B, H, K, V]
  Tensors outputs;
  for (int64_t t = 0; t < q.size(1); ++t) {
    const auto kept = state * decay.select(1, t).unsqueeze(-1).unsqueeze(-1);  // [B, H, K, V]
    state =
        torch::addcmul(kept, keys.select(1, t).unsqueeze(-1), values.select(1, t).unsqueeze(-2));
    outputs.push_back(queries.select(1, t).unsqueeze(-2).matmul(state).squeeze(-2));  // [B, H, V]
  }
  return {torch::stack(outputs, 1).to(q.dtype()), state};
}

}  // namespace tandem
