#include "nn/full_attention.h"

#include "nn/sequence_parallel.h"

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

/// Of whole sequences.
AttendMask mask_of(const ForwardContext& context) {
  AttendMask mask{.query_segment = context.segment, .key_segment = context.segment};
  if (context.key_segment.defined()) {
    mask.key_segment = context.key_segment;
    if (!context.segment.defined()) mask.query_segment = torch::zeros_like(context.key_segment);
  }
  return mask;
}

}  // namespace

FullAttention::FullAttention(const FullAttentionConfig& config, const MixerSpec& spec)
    : SelfAttention({config.n_heads, config.n_kv_heads.value_or(config.n_heads), config.head_dim,
                     config.bias || config.qkv_bias, config.bias, config.qk_norm_eps},
                    spec) {}

Tensor FullAttention::forward(const Tensor& x, const ForwardContext& context, MixerState* state) {
  const auto [q, k, v] = heads(x, context);
  if (is_divided(context) && !state) {
    TORCH_CHECK(!context.key_segment.defined(), "full attention: key_segment goes with whole rows");
    const auto kv = gather_columns(torch::cat({k, v}, 2), *context.sequence);  // [B, n T, 2 G, K]
    const auto seen = kv.narrow(1, 0, (part_of(context.sequence).rank + 1) * x.size(1)).chunk(2, 2);
    const AttendMask mask{.query_segment = context.segment,
                          .key_segment = segment_up_to_here(context, seen[0].size(1))};
    return output(depending_on(attend(q, seen[0], seen[1], mask), kv));
  }
  if (!state) return output(attend(q, k, v, mask_of(context)));
  TORCH_CHECK(!context.key_segment.defined(), "full attention: key_segment is for training");
  auto& cache = dynamic_cast<FullAttentionState&>(*state).cache;
  if (is_divided(context)) {
    append_columns(cache, k, v, context);
  } else {
    cache.append(k, v, context.positions, context.lengths);
  }
  return output(attend(q, cache.keys(), cache.values(), mask_of(cache, context)));
}

std::unique_ptr<MixerState> FullAttention::make_state(const StateShape& shape) const {
  return std::make_unique<FullAttentionState>(KvCache(shape, local_kv_heads(), shape_.head_dim));
}

double FullAttention::forward_flops(Phase phase, int64_t length, int64_t batch) const {
  const double n = static_cast<double>(length);
  const bool decode = phase == Phase::kDecode;
  const double pairs = decode ? n + 1 : n * (n + 1) / 2;
  return static_cast<double>(batch) * flops_of(decode ? 1 : n, pairs);
}

double FullAttention::sequence_bytes(const SequencePass& pass) const {
  return key_value_gather_bytes(pass, pass.heads(shape_.n_kv_heads) * shape_.head_dim,
                                pass.passes());
}

int64_t FullAttention::state_bytes(int64_t length, torch::Dtype dtype) const {
  return bytes_of(length, dtype);
}

}  // namespace tandem
