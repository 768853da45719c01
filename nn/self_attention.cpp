#include "nn/self_attention.h"

#include "nn/cache_rows.h"

namespace tandem {

SelfAttention::SelfAttention(const Shape& shape, const MixerSpec& spec)
    : shape_(shape), spec_(spec) {
  const int64_t q_dim = shape.n_heads * shape.head_dim, kv_dim = shape.n_kv_heads * shape.head_dim;
  const auto linear = [&](int64_t in, int64_t out, Split split, bool bias) {
    return Linear(in, out, spec.init.value_or(init_kaiming_uniform(in)), split, bias,
                  /*split_unit=*/shape.head_dim);
  };
  const auto to_heads = [&](int64_t out) {
    return linear(spec.d_model, out, Split::kRows, shape.qkv_bias);
  };
  q_proj_ = register_module("q_proj", to_heads(q_dim));
  k_proj_ = register_module("k_proj", to_heads(kv_dim));
  v_proj_ = register_module("v_proj", to_heads(kv_dim));
  o_proj_ = register_module("o_proj", linear(q_dim, spec.d_model, Split::kColumns, shape.o_bias));
  if (!shape.qk_norm_eps) return;
  q_norm_ = register_module("q_norm", HeadNorm(shape.head_dim, *shape.qk_norm_eps));
  k_norm_ = register_module("k_norm", HeadNorm(shape.head_dim, *shape.qk_norm_eps));
}

SelfAttention::Heads SelfAttention::heads(const Tensor& whole,
                                          const ForwardContext& context) const {
  TORCH_CHECK(whole.dim() == 3 && whole.size(2) == spec_.d_model, "attention: x ", whole.sizes(),
              ", expected [B, T, ", spec_.d_model, "]");
  const Tensor x = copy_to_group(whole, tensor_group());
  const auto rope =
      make_rope_table(spec_.rope, shape_.head_dim, context.positions, x.scalar_type());
  const auto project = [&](const Linear& proj) {
    return proj->forward(x).unflatten(-1, {-1, shape_.head_dim});
  };
  const auto rotated = [&](const Linear& proj, const HeadNorm& norm) {
    const Tensor y = project(proj);
    return apply_rope(norm ? norm->forward(y) : y, rope, spec_.rope);
  };
  return {rotated(q_proj_, q_norm_), rotated(k_proj_, k_norm_), project(v_proj_)};
}

Tensor SelfAttention::output(const Tensor& mixed) const {
  return o_proj_->forward(mixed.flatten(2));
}

// Per token 2 D (2 H + 2 G) K for the projections; per query and key that meet 4 H K.
double SelfAttention::flops_of(double n_tokens, double n_pairs) const {
  const double q_dim = static_cast<double>(shape_.n_heads * shape_.head_dim),
               kv_dim = static_cast<double>(shape_.n_kv_heads * shape_.head_dim);
  return 4 * static_cast<double>(spec_.d_model) * (q_dim + kv_dim) * n_tokens + 4 * q_dim * n_pairs;
}

int64_t SelfAttention::bytes_of(int64_t n_tokens, torch::Dtype dtype) const {
  return n_tokens * cache_bytes_per_token(local_kv_heads(), shape_.head_dim, dtype);
}

int64_t SelfAttention::local_kv_heads() const { return k_proj_->local_out() / shape_.head_dim; }

}  // namespace tandem
