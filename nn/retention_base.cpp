#include "nn/retention_base.h"

#include <algorithm>
#include <cmath>

#include "nn/gated_retention_ops.h"
#include "nn/norm.h"
#include "nn/sequence_parallel.h"
#include "nn/swiglu.h"

namespace tandem {
namespace {

struct RetentionState : MixerState {
  explicit RetentionState(Tensor held) : state(std::move(held)) {}
  std::unique_ptr<MixerState> select(const Tensor& rows) const override {
    return std::make_unique<RetentionState>(state.index_select(0, rows));
  }
  std::vector<std::pair<std::string, Tensor>> tensors() const override {
    return {{"state", state}};
  }

  Tensor state;  // [B, H, K, K] float32 or float64
};

/// Segment 0 for the tokens of each row, -1 after them; undefined when all columns are tokens.
Tensor segment_of(const Tensor& lengths, int64_t n_tokens) {
  if (rows_are_full(lengths, n_tokens)) return {};
  return torch::where(torch::arange(n_tokens, lengths.options()) < lengths.unsqueeze(1), 0, -1)
      .to(torch::kInt32);  // [B, T]
}

}  // namespace

RetentionBase::RetentionBase(const Shape& shape, const MixerSpec& spec)
    : shape_(shape), spec_(spec) {
  const int64_t d_model = spec.d_model, dim = shape.n_heads * shape.head_dim;
  const auto init = init_xavier_uniform(d_model, dim, std::exp2(-2.5));  // as YOCO's code
  const auto to_heads = [&](const char* name) {
    return register_module(name, Linear(d_model, dim, init, Split::kRows, /*bias=*/false,
                                        /*split_unit=*/shape.head_dim));
  };
  q_proj_ = to_heads("q_proj");
  k_proj_ = to_heads("k_proj");
  v_proj_ = to_heads("v_proj");
  g_proj_ = to_heads("g_proj");
}

void RetentionBase::register_o_proj() {
  const int64_t d_model = spec_.d_model, dim = shape_.n_heads * shape_.head_dim;
  o_proj_ = register_module(
      "o_proj", Linear(dim, d_model, init_xavier_uniform(dim, d_model, 0.5), Split::kColumns,
                       /*bias=*/false, /*split_unit=*/shape_.head_dim));
}

RetentionBase::LocalHeads RetentionBase::local_heads() const {
  return {q_proj_->part().begin / shape_.head_dim, q_proj_->local_out() / shape_.head_dim};
}

Tensor RetentionBase::forward(const Tensor& whole, const ForwardContext& context,
                              MixerState* state) {
  TORCH_CHECK(whole.dim() == 3 && whole.size(2) == spec_.d_model, "retention: x ", whole.sizes(),
              ", expected [B, T, ", spec_.d_model, "]");
  const Tensor x = copy_to_group(whole, tensor_group());
  const int64_t head_dim = shape_.head_dim;
  const auto rope = make_rope_table(spec_.rope, head_dim, context.positions, x.scalar_type());
  const auto heads = [&](const Linear& proj) {
    return proj->forward(x).unflatten(-1, {-1, head_dim});
  };
  const auto q = apply_rope(heads(q_proj_), rope, spec_.rope);  // [B, T, H, K]
  const auto k = apply_rope(heads(k_proj_), rope, spec_.rope) * std::pow(head_dim, -0.5);
  const auto v = heads(v_proj_);
  const auto decay = log_decay(x);  // [B, T, H]

  Communicator* const sequence = is_divided(context) ? context.sequence : nullptr;
  Retention retained;
  if (state) {
    auto& held = dynamic_cast<RetentionState&>(*state).state;
    TORCH_CHECK(held.size(0) == x.size(0), "retention: ", x.size(0), " rows, the state has ",
                held.size(0));
    retained = gated_retention(q, k, v, decay, segment_of(context.lengths, x.size(1)), held, {},
                               shape_.chunk, sequence);
    held.copy_(retained.final_state.detach());
  } else {
    const auto before = segment_before(context.row_segment, part_of(sequence).rank * x.size(1));
    retained = gated_retention(q, k, v, decay, context.segment, {}, before, shape_.chunk, sequence);
  }
  const auto y = rms_norm(retained.output, spec_.norm_eps).flatten(2);  // [B, T, H * K]
  return o_proj_->forward(swiglu(g_proj_->forward(x), y));
}

std::unique_ptr<MixerState> RetentionBase::make_state(const StateShape& shape) const {
  const auto options = torch::dtype(float_or_wider(shape.dtype)).device(shape.device);
  return std::make_unique<RetentionState>(
      torch::zeros({shape.batch, local_heads().count, shape_.head_dim, shape_.head_dim}, options));
}

// Per token 2 D 5 H K for the projections. Retention of a token takes 4 H (C K + K^2) in chunks of
// C tokens, all equally long and no longer than asked for (whole squares of scores are computed:
// q k^T and its product with v, then q S and k^T v), and 4 H K^2 in the recurrence of decoding.
double RetentionBase::forward_flops(Phase phase, int64_t length, int64_t batch) const {
  const bool decode = phase == Phase::kDecode;
  const double n_tokens = static_cast<double>(decode ? 1 : length),
               n_heads = static_cast<double>(shape_.n_heads);
  const double head_dim = static_cast<double>(shape_.head_dim),
               d_model = static_cast<double>(spec_.d_model);
  const int64_t n_chunks = (length + shape_.chunk - 1) / shape_.chunk;
  const double chunk = decode ? 0 : std::ceil(n_tokens / static_cast<double>(n_chunks));
  const double projections = 2 * d_model * 5 * n_heads * head_dim;
  return static_cast<double>(batch) * n_tokens *
         (projections + 4 * n_heads * head_dim * (chunk + head_dim));
}

// A state and its decay from each rank to all, and a state's gradient on the way back.
double RetentionBase::sequence_bytes(const SequencePass& pass) const {
  const auto n_states = static_cast<double>(pass.batch * pass.heads(shape_.n_heads));
  const auto size = static_cast<double>(shape_.head_dim * shape_.head_dim);
  const auto passes = static_cast<double>(pass.passes());
  return static_cast<double>((pass.ranks - 1) * pass.wide()) * n_states *
         (passes * (size + 1) + size);
}

int64_t RetentionBase::state_bytes(int64_t, torch::Dtype dtype) const {
  return local_heads().count * shape_.head_dim * shape_.head_dim *
         static_cast<int64_t>(torch::elementSize(float_or_wider(dtype)));
}

}  // namespace tandem
