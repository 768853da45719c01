#include "nn/full_attention.h"

namespace tandem {
namespace {

struct FullAttentionState : MixerState {
  explicit FullAttentionState(KvCache cached) : cache(std::move(cached)) {}
  std::unique_ptr<MixerState> select(const Tensor& rows) const override {
    return std::make_unique<FullAttentionState>(cache.select(rows));
  }
  std::vector<std::pair<std::string, Tensor>> tensors() const override {
    return {{"keys", cache.keys()}, {"values", cache.values()}};
  }

  KvCache cache;
};

}  // namespace

FullAttention::FullAttention(const FullAttentionConfig& config, const MixerSpec& spec)
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

Tensor FullAttention::forward(const Tensor& x, const ForwardContext& context, MixerState* state) {
  TORCH_CHECK(x.dim() == 3 && x.size(2) == spec_.d_model, "full_attention: x ", x.sizes(),
              ", expected [B, T, ", spec_.d_model, "]");
  const int64_t head_dim = config_.head_dim;
  const auto rope = make_rope_table(spec_.rope, head_dim, context.positions, x.scalar_type());
  const auto heads = [&](const Linear& proj) {
    return proj->forward(x).unflatten(-1, {-1, head_dim});
  };
  const auto q = apply_rope(heads(q_proj_), rope, spec_.rope);  // [B, T, H, K]
  const auto k = apply_rope(heads(k_proj_), rope, spec_.rope);  // [B, T, G, K]
  const auto v = heads(v_proj_);
  Tensor out;  // [B, T, H, K]
  if (state) {
    auto& cache = dynamic_cast<FullAttentionState&>(*state).cache;
    cache.append(k, v, context.positions, context.lengths);
    out = attend(q, cache.keys(), cache.values(), cache.mask(context.positions));
  } else {
    out = attend(q, k, v, {.query_segment = context.segment, .key_segment = context.segment});
  }
  return o_proj_->forward(out.flatten(2));
}

std::unique_ptr<MixerState> FullAttention::make_state(const StateShape& shape) const {
  return std::make_unique<FullAttentionState>(
      KvCache(shape, config_.n_kv_heads.value_or(config_.n_heads), config_.head_dim));
}

// Per token 2 D (2 H + 2 G) K for the projections; per query and key that meet 4 H K.
double FullAttention::forward_flops(Phase phase, int64_t length, int64_t batch) const {
  const double n = static_cast<double>(length),
               q_dim = static_cast<double>(config_.n_heads * config_.head_dim);
  const double kv_dim =
      static_cast<double>(config_.n_kv_heads.value_or(config_.n_heads) * config_.head_dim);
  const double projections = 4.0 * static_cast<double>(spec_.d_model) * (q_dim + kv_dim);
  const bool decode = phase == Phase::kDecode;
  const double pairs = decode ? n + 1 : n * (n + 1) / 2;
  return static_cast<double>(batch) * ((decode ? 1 : n) * projections + 4 * q_dim * pairs);
}

int64_t FullAttention::state_bytes(int64_t length, int64_t element_size) const {
  return 2 * length * config_.n_kv_heads.value_or(config_.n_heads) * config_.head_dim *
         element_size;
}

}  // namespace tandem
