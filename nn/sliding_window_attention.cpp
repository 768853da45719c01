#include "nn/sliding_window_attention.h"

#include <algorithm>

#include "nn/attend.h"

namespace tandem {
namespace {

/// What the queries of one call attend to.
struct Visible {
  Tensor keys = {}, values = {};  // [B, S, G, K], the call's own tokens at the end
  AttendMask mask = {};
};

/// The last W tokens of each row, in a buffer with some room behind: a decode step writes one
/// token, and the window moves to the front only when the room is used up.
struct SlidingWindowState : MixerState {
  SlidingWindowState(const StateShape& shape, int64_t window_length, int64_t n_kv_heads,
                     int64_t head_dim)
      : window(window_length),
        end(window_length),
        keys(torch::zeros(
            {shape.batch, window + std::max<int64_t>(8, window / 8), n_kv_heads, head_dim},
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
    const bool ragged = held_by_row.defined() || !rows_are_full(lengths, n_tokens);
    const bool fits = !ragged && end + n_tokens <= keys.size(1);
    Visible visible{.mask = {.window = window}};
    if (!ragged) {
      visible.keys = push(keys, k, fits).slice(1, window - held);  // without the zeros in front
      visible.values = push(values, v, fits).slice(1, window - held);
      held = std::min(held + n_tokens, window);
    } else {
      const auto added =
          lengths.defined()
              ? lengths
              : torch::full({k.size(0)}, n_tokens, torch::dtype(torch::kInt64).device(k.device()));
      if (!held_by_row.defined()) held_by_row = torch::full_like(added, held);
      visible.keys = push(keys, k, added);
      visible.values = push(values, v, added);
      const auto empty =
          torch::arange(window + n_tokens, added.options()) < (window - held_by_row).unsqueeze(1);
      // The zeros in front are a document that no query is in.
      visible.mask.key_segment = empty.to(torch::kInt32);  // [B, W + T]
      visible.mask.query_segment =
          torch::zeros({k.size(0), n_tokens}, visible.mask.key_segment.options());
      held_by_row = (held_by_row + added).clamp_max(window);
    }
    end = fits ? end + n_tokens : window;
    return visible;
  }

  int64_t window, end;  // the window is [end - W, end) of the buffers
  Tensor keys, values;  // [B, W + room, G, K]
  int64_t held = 0;     // tokens in every row's window, while all are equally long
  Tensor held_by_row;   // [B] int64 from then on

 private:
  /// Puts `added` [B, T, G, K] behind the window; returns both, [B, W + T, G, K].
  Tensor push(Tensor& buffer, const Tensor& added, bool fits) const {
    if (fits) {
      buffer.narrow(1, end, added.size(1)).copy_(added.detach());
      return buffer.narrow(1, end - window, window + added.size(1));
    }
    const auto all =
        torch::cat({buffer.narrow(1, end - window, window), added.to(buffer.dtype())}, 1);
    buffer.narrow(1, 0, window).copy_(all.slice(1, -window).detach());
    return all;
  }
  /// The same for rows that take different numbers of tokens.
  Tensor push(Tensor& buffer, const Tensor& added, const Tensor& lengths) const {
    const auto all =
        torch::cat({buffer.narrow(1, end - window, window), added.to(buffer.dtype())}, 1);
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
    : config_(config), spec_(spec) {
  const int64_t d_model = spec.d_model, q_dim = config.n_heads * config.head_dim;
  const int64_t kv_dim = config.n_kv_heads.value_or(config.n_heads) * config.head_dim;
  q_proj_ = register_module("q_proj",
                            Linear(d_model, q_dim, init_kaiming_uniform(d_model), Split::kRows));
  k_proj_ = register_module("k_proj",
                            Linear(d_model, kv_dim, init_kaiming_uniform(d_model), Split::kRows));
  v_proj_ = register_module("v_proj",
                            Linear(d_model, kv_dim, init_kaiming_uniform(d_model), Split::kRows));
  o_proj_ = register_module("o_proj",
                            Linear(q_dim, d_model, init_kaiming_uniform(q_dim), Split::kColumns));
}

Tensor SlidingWindowAttention::forward(const Tensor& x, const ForwardContext& context,
                                       MixerState* state) {
  TORCH_CHECK(x.dim() == 3 && x.size(2) == spec_.d_model, "sliding_window: x ", x.sizes(),
              ", expected [B, T, ", spec_.d_model, "]");
  const int64_t head_dim = config_.head_dim;
  const auto rope = make_rope_table(spec_.rope, head_dim, context.positions, x.scalar_type());
  const auto heads = [&](const Linear& proj) {
    return proj->forward(x).unflatten(-1, {-1, head_dim});
  };
  const auto q = apply_rope(heads(q_proj_), rope, spec_.rope);  // [B, T, H, K]
  const auto k = apply_rope(heads(k_proj_), rope, spec_.rope);  // [B, T, G, K]
  const auto v = heads(v_proj_);
  Visible visible{
      k,
      v,
      {.window = config_.window, .query_segment = context.segment, .key_segment = context.segment}};
  if (state) visible = dynamic_cast<SlidingWindowState&>(*state).append(k, v, context.lengths);
  return o_proj_->forward(attend(q, visible.keys, visible.values, visible.mask).flatten(2));
}

std::unique_ptr<MixerState> SlidingWindowAttention::make_state(const StateShape& shape) const {
  return std::make_unique<SlidingWindowState>(
      shape, config_.window, config_.n_kv_heads.value_or(config_.n_heads), config_.head_dim);
}

// Per token 2 D (2 H + 2 G) K for the projections; per query and key that meet 4 H K. The query at
// i meets min(i + 1, W) keys.
double SlidingWindowAttention::forward_flops(Phase phase, int64_t length, int64_t batch) const {
  const double n = static_cast<double>(length),
               q_dim = static_cast<double>(config_.n_heads * config_.head_dim);
  const double kv_dim =
      static_cast<double>(config_.n_kv_heads.value_or(config_.n_heads) * config_.head_dim);
  const double projections = 4.0 * static_cast<double>(spec_.d_model) * (q_dim + kv_dim);
  const bool decode = phase == Phase::kDecode;
  const double w = static_cast<double>(std::min(decode ? length + 1 : length, config_.window));
  const double pairs = decode ? w : w * (w + 1) / 2 + (n - w) * w;
  return static_cast<double>(batch) * ((decode ? 1 : n) * projections + 4 * q_dim * pairs);
}

int64_t SlidingWindowAttention::state_bytes(int64_t, int64_t element_size) const {
  return 2 * config_.window * config_.n_kv_heads.value_or(config_.n_heads) * config_.head_dim *
         element_size;
}

}  // namespace tandem
