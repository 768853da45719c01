#include "yoco/shared_kv.h"

#include "nn/cache_rows.h"
#include "nn/layer_runner.h"
#include "nn/sequence_parallel.h"

namespace tandem {

SharedKvMaker::SharedKvMaker(const SharedKvSpec& spec) : spec_(spec) {
  const Init init = init_kaiming_uniform(spec.d_model);
  const int64_t width = spec.n_kv_heads * spec.head_dim;
  norm_ = register_module("norm", RmsNorm(spec.d_model, spec.norm_eps));
  const auto to_heads = [&](const char* name) {
    return register_module(name, Linear(spec.d_model, width, init, Split::kRows, spec.bias,
                                        /*split_unit=*/spec.head_dim));
  };
  k_proj_ = to_heads("k_proj");
  v_proj_ = to_heads("v_proj");
}

SharedKv SharedKvMaker::forward(const Tensor& h, const ForwardContext& context, KvCache* cache) {
  const auto project = [this, context](const Tensors& inputs) -> Tensors {
    const Tensor x = copy_to_group(norm_->forward(inputs[0]), tensor_group());  // [B, T, D]
    const std::vector<int64_t> heads = {x.size(0), x.size(1), -1, spec_.head_dim};
    const RopeTable table =
        make_rope_table(spec_.rope, spec_.head_dim, context.positions, x.scalar_type());
    return {apply_rope(k_proj_->forward(x).view(heads), table, spec_.rope),  // [B, T, G, K]
            v_proj_->forward(x).view(heads)};                                // [B, T, G, K]
  };
  const Tensors kv = run_layer(context, *this, {h}, project);
  if (is_divided(context) && !cache) {  // outside the layer, which may run again
    const Tensor all = gather_columns(torch::cat(kv, 2), *context.sequence);  // [B, n T, 2 G, K]
    const int64_t begin = part_of(context.sequence).rank * h.size(1), n_keys = begin + h.size(1);
    const auto seen = all.narrow(1, 0, n_keys).chunk(2, 2);
    return {seen[0], seen[1], segment_up_to_here(context, n_keys), nullptr, begin};
  }
  if (!cache) return {kv[0], kv[1], context.segment};
  if (is_divided(context)) {
    append_columns(*cache, kv[0], kv[1], context);
  } else {
    cache->append(kv[0], kv[1], context.positions, context.lengths);
  }
  return {cache->keys(), cache->values(), /*segment=*/{}, cache};
}

KvCache SharedKvMaker::make_cache(const StateShape& shape) const {
  return KvCache(shape, k_proj_->local_out() / spec_.head_dim, spec_.head_dim);
}

double SharedKvMaker::forward_flops(double n_tokens) const {
  return 2.0 * 2.0 * spec_.d_model * spec_.n_kv_heads * spec_.head_dim * n_tokens;
}

double SharedKvMaker::sequence_bytes(const SequencePass& pass) const {
  return key_value_gather_bytes(pass, pass.heads(spec_.n_kv_heads) * spec_.head_dim, /*passes=*/1);
}

int64_t SharedKvMaker::state_bytes(int64_t length, torch::Dtype dtype) const {
  return length *
         cache_bytes_per_token(k_proj_->local_out() / spec_.head_dim, spec_.head_dim, dtype);
}

}  // namespace tandem
