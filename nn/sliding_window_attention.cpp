#include "nn/sliding_window_attention.h"

#include <algorithm>

#include "comm/communicator.h"
#include "nn/attend.h"
#include "nn/cache_rows.h"
#include "nn/sequence_parallel.h"

namespace tandem {
namespace {

/// What the queries of one call attend to.
struct Visible {
  Tensor keys = {}, values = {};  // [B, S, G, K or W], the call's own tokens at the end
  AttendMask mask = {};
};

/// The last W tokens of each row, in a buffer with some room behind: a decode step writes one
/// token, and the window moves to the front only when the room is used up. Rows of different
/// lengths end at the same place, so only a call that gives them different numbers of tokens has to
/// move them.
struct SlidingWindowState : MixerState {
  SlidingWindowState(const StateShape& shape, int64_t window_length, int64_t n_kv_heads,
                     int64_t head_dim)
      : window(window_length),
        end(window_length),
        keys(torch::zeros(
            {shape.batch, window + std::max<int64_t>(8, window / 8), n_kv_heads,
             cache_row_width(head_dim, shape.dtype)},
            torch::dtype(shape.dtype).device(shape.device))),
        values(torch::zeros_like(keys)) {}

  std::unique_ptr<MixerState> select(const Tensor& rows) const override {
    auto selected = std::make_unique<SlidingWindowState>(*this);
    selected->keys = keys.index_select(0, rows);
    selected->values = values.index_select(0, rows);
    if (held_by_row.defined()) selected->held_by_row = held_by_row.index_select(0, rows);
    return selected;
  }
  std::vector<std::pair<std::string, Tensor>> tensors() const override {
    return {{"keys", keys.narrow(1, end - window, window)},
            {"values", values.narrow(1, end - window, window)}};
  }

  Visible append(const Tensor& k, const Tensor& v, const Tensor& lengths) {
    const int64_t n_tokens = k.size(1);
    TORCH_CHECK(k.size(0) == keys.size(0), "sliding_window: ", k.size(0), " rows, the state has ",
                keys.size(0));
    const bool full = rows_are_full(lengths, n_tokens);
    const bool fits = full && end + n_tokens <= keys.size(1);
    if (!full && !held_by_row.defined()) held_by_row = torch::full_like(lengths, held);
    Visible visible{.keys = full ? push(keys, k, fits) : push(keys, k, lengths),
                    .values = full ? push(values, v, fits) : push(values, v, lengths),
                    .mask = {.window = window}};
    if (!held_by_row.defined()) {  // without the zeros in front
      visible.keys = visible.keys.slice(1, window - held);
      visible.values = visible.values.slice(1, window - held);
      held = std::min(held + n_tokens, window);
    } else {
      const auto empty = torch::arange(window + n_tokens, held_by_row.options()) <
                         (window - held_by_row).unsqueeze(1);
      // The zeros in front are a document that no query is in.
      visible.mask.key_segment = empty.to(torch::kInt32);  // [B, W + T]
      visible.mask.query_segment =
          torch::zeros({k.size(0), n_tokens}, visible.mask.key_segment.options());
      const auto after = full ? held_by_row + n_tokens : held_by_row + lengths;
      held_by_row = after.clamp_max(window);
    }
    end = fits ? end + n_tokens : window;
    return visible;
  }

  /// The same where ranks divide the rows: k and v are this rank's columns. Every rank holds the
  /// window that follows the last one.
  Visible append_columns(const Tensor& k, const Tensor& v, const ForwardContext& context) {
    Communicator& group = *context.sequence;
    const int64_t n_tokens = k.size(1), n_before = group.rank() * n_tokens;
    const bool full = rows_are_full(context.row_lengths, group.size() * n_tokens);
    if (!full && !held_by_row.defined()) held_by_row = torch::full_like(context.row_lengths, held);
    const auto own = as_held(torch::cat({k, v}, 2));
    const auto held_before = torch::cat({keys, values}, 2).narrow(1, end - window, window);
    auto seen = with_columns_before(own, window - 1, group);  // [B, S, 2 G, K]
    Visible visible{.mask = {.window = window}};
    if (seen.size(1) == n_before + n_tokens) {  // the window reaches the call's first token
      seen = torch::cat({held_before, seen}, 1);
      if (!held_by_row.defined()) {
        seen = seen.slice(1, window - held);  // without the zeros in front
      } else {
        const auto empty = torch::arange(seen.size(1), held_by_row.options()) <
                           (window - held_by_row).unsqueeze(1);
        visible.mask.key_segment = empty.to(torch::kInt32);  // as in append()
        visible.mask.query_segment =
            torch::zeros({k.size(0), n_tokens}, visible.mask.key_segment.options());
      }
    }
    visible.keys = seen.chunk(2, 2)[0];
    visible.values = seen.chunk(2, 2)[1];

    const auto lengths = row_lengths_of(context, n_tokens);
    keep_last(window_of_all(held_before, own, lengths, group));
    if (held_by_row.defined()) {
      held_by_row = (held_by_row + lengths).clamp_max(window);
    } else {
      held = std::min(held + group.size() * n_tokens, window);
    }
    return visible;
  }

  int64_t window, end;  // the window is [end - W, end) of the buffers
  Tensor keys, values;  // [B, W + room, G, K or the width of their rows]
  int64_t held = 0;     // tokens in every row's window, while all are equally long
  Tensor held_by_row;   // [B] int64 from then on

 private:
  Tensor as_held(const Tensor& x) const { return to_cache_rows(x, keys.scalar_type()); }
  /// The last W of what was held and of each row's tokens of this call, [B, W, 2 G, K]: each rank
  /// gives those that it has, rank 0 those that were held.
  Tensor window_of_all(const Tensor& held_before, const Tensor& own, const Tensor& lengths,
                       Communicator& group) const {
    const auto index =
        lengths.unsqueeze(1) + torch::arange(window, lengths.options());  // [B, W], W = first token
    const auto column = index - window - group.rank() * own.size(1);
    const auto is_own = column.ge(0) & column.lt(own.size(1));
    const auto is_held = index.lt(window);
    const auto from = torch::where(is_own, column + window, torch::where(is_held, index, 0));
    const auto given = group.rank() == 0 ? is_own | is_held : is_own;
    const auto wide = [&](const Tensor& x) { return x.view({x.size(0), x.size(1), 1, 1}); };
    auto last = torch::cat({held_before, own}, 1)
                    .gather(1, wide(from).expand({-1, -1, own.size(2), own.size(3)}))
                    .masked_fill(~wide(given), 0)
                    .contiguous();
    group.all_reduce(last, Reduction::kSum)->wait();
    return last;
  }
  void keep_last(const Tensor& last) {
    const auto parts = last.chunk(2, 2);
    keys.narrow(1, 0, window).copy_(parts[0].detach());
    values.narrow(1, 0, window).copy_(parts[1].detach());
    end = window;
  }
  /// Puts `added` [B, T, G, K] behind the window; returns both, [B, W + T, G, K].
  Tensor push(Tensor& buffer, const Tensor& added, bool fits) const {
    if (fits) {
      buffer.narrow(1, end, added.size(1)).copy_(as_held(added.detach()));
      return buffer.narrow(1, end - window, window + added.size(1));
    }
    const auto all = torch::cat({buffer.narrow(1, end - window, window), as_held(added)}, 1);
    buffer.narrow(1, 0, window).copy_(all.slice(1, -window).detach());
    return all;
  }
  /// The same for rows that take different numbers of tokens.
  Tensor push(Tensor& buffer, const Tensor& added, const Tensor& lengths) const {
    const auto all = torch::cat({buffer.narrow(1, end - window, window), as_held(added)}, 1);
    const auto index =
        lengths.unsqueeze(1) +
        torch::arange(window, lengths.options());  // [B, W], the last W before a row's new end
    const auto kept =
        all.gather(1, index.view({-1, window, 1, 1}).expand({-1, -1, all.size(2), all.size(3)}));
    buffer.narrow(1, 0, window).copy_(kept.detach());
    return all;
  }
};

}  // namespace

SlidingWindowAttention::SlidingWindowAttention(const SlidingWindowConfig& config,
                                               const MixerSpec& spec)
    : SelfAttention({config.n_heads, config.n_kv_heads.value_or(config.n_heads), config.head_dim,
                     config.qkv_bias, /*o_bias=*/false, config.qk_norm_eps},
                    spec),
      window_(config.window) {}

Tensor SlidingWindowAttention::forward(const Tensor& x, const ForwardContext& context,
                                       MixerState* state) {
  const auto [q, k, v] = heads(x, context);
  if (is_divided(context) && !state) {
    const auto kv = with_columns_before(torch::cat({k, v}, 2), window_ - 1, *context.sequence);
    const AttendMask mask{.window = window_,
                          .query_segment = context.segment,
                          .key_segment = segment_up_to_here(context, kv.size(1))};
    const auto parts = kv.chunk(2, 2);  // [B, S, G, K]
    return output(depending_on(attend(q, parts[0], parts[1], mask), kv));
  }
  Visible visible{
      k, v, {.window = window_, .query_segment = context.segment, .key_segment = context.segment}};
  if (state) {
    auto& held = dynamic_cast<SlidingWindowState&>(*state);
    visible = is_divided(context) ? held.append_columns(k, v, context)
                                  : held.append(k, v, context.lengths);
  }
  return output(attend(q, visible.keys, visible.values, visible.mask));
}

std::unique_ptr<MixerState> SlidingWindowAttention::make_state(const StateShape& shape) const {
  return std::make_unique<SlidingWindowState>(shape, window_, local_kv_heads(), shape_.head_dim);
}

// The query at i meets min(i + 1, W) keys.
double SlidingWindowAttention::forward_flops(Phase phase, int64_t length, int64_t batch) const {
  const double n = static_cast<double>(length);
  const bool decode = phase == Phase::kDecode;
  const double w = static_cast<double>(std::min(decode ? length + 1 : length, window_));
  const double pairs = decode ? w : w * (w + 1) / 2 + (n - w) * w;
  return static_cast<double>(batch) * flops_of(decode ? 1 : n, pairs);
}

double SlidingWindowAttention::sequence_bytes(const SequencePass& pass) const {
  const int64_t heads = pass.heads(shape_.n_kv_heads);
  return columns_before_bytes(
      pass, window_ - 1,
      static_cast<double>(pass.batch * 2 * heads * shape_.head_dim * pass.element_size));
}

int64_t SlidingWindowAttention::state_bytes(int64_t, torch::Dtype dtype) const {
  return bytes_of(window_, dtype);
}

}  // namespace tandem
