#include "blocktf/encoder_layer.h"

#include <cmath>
#include <limits>

#include "nn/layer_runner.h"

namespace tandem {

EncoderLayer::EncoderLayer(const EncoderConfig& config)
    : d_embed_(config.d_embed),
      n_heads_(config.n_heads),
      head_dim_(config.channels_per_head()),
      ffn_dim_(config.ffn_dim) {
  const auto linear = [this](const char* name, int64_t in, int64_t out, Split split,
                             int64_t split_unit) {
    return register_module(
        name, Linear(in, out, init_normal(kEncoderStd), split, /*bias=*/true, split_unit));
  };
  const auto norm = [&](const char* name) {
    return register_module(name, LayerNorm(d_embed_, config.norm_eps));
  };
  const int64_t width = n_heads_ * head_dim_;
  q_proj_ = linear("q_proj", d_embed_, width, Split::kRows, head_dim_);
  k_proj_ = linear("k_proj", d_embed_, width, Split::kRows, head_dim_);
  v_proj_ = linear("v_proj", d_embed_, width, Split::kRows, head_dim_);
  o_proj_ = linear("o_proj", width, d_embed_, Split::kColumns, head_dim_);
  attention_norm_ = norm("attention_norm");
  up_proj_ = linear("up_proj", d_embed_, ffn_dim_, Split::kRows, 1);
  down_proj_ = linear("down_proj", ffn_dim_, d_embed_, Split::kColumns, 1);
  ffn_norm_ = norm("ffn_norm");
}

Tensor EncoderLayer::forward(const Tensor& x, const Tensor& score_bias,
                             const ForwardContext& context) {
  const auto layer = [this, score_bias](const Tensors& inputs) -> Tensors {
    const auto h = attention_norm_->forward(inputs[0] + attend(inputs[0], score_bias));
    const auto up = at::gelu(up_proj_->forward(copy_to_group(h, tensor_group())));  // exact
    return {ffn_norm_->forward(h + down_proj_->forward(up))};
  };
  return run_layer(context, *this, {x}, layer)[0];
}

// Blocks are a few tokens long: whole score matrices are smaller than what a fused kernel sets up.
Tensor EncoderLayer::attend(const Tensor& whole, const Tensor& score_bias) const {
  const Tensor x = copy_to_group(whole, tensor_group());
  const auto wide = float_or_wider(x.scalar_type());
  const auto heads = [&](const Linear& projection) {  // [M, H, S, K]
    return projection->forward(x).unflatten(-1, {-1, head_dim_}).transpose(1, 2).to(wide);
  };
  const auto q = heads(q_proj_) / std::sqrt(static_cast<double>(head_dim_));
  auto scores = at::matmul(q, heads(k_proj_).transpose(2, 3));  // [M, H, S, S]
  if (score_bias.defined()) scores = scores + score_bias;
  const auto mixed = at::matmul(at::softmax(scores, -1), heads(v_proj_));  // [M, H, S, K]
  return o_proj_->forward(mixed.transpose(1, 2).flatten(2).to(x.scalar_type()));
}

double EncoderLayer::forward_flops(int64_t n_tokens) const {
  const double width = static_cast<double>(n_heads_ * head_dim_);
  const double of_token = 4 * width * d_embed_ + 2.0 * d_embed_ * ffn_dim_ + 2 * width * n_tokens;
  return 2 * of_token * n_tokens;
}

Tensor score_bias_of(const Tensor& real, torch::Dtype dtype) {
  const auto wide = float_or_wider(dtype);
  const double lowest = wide == torch::kFloat64
                            ? std::numeric_limits<double>::lowest()
                            : static_cast<double>(std::numeric_limits<float>::lowest());
  return torch::zeros(real.sizes(), real.options().dtype(wide))
      .masked_fill_(real.logical_not(), lowest)
      .unsqueeze(1)
      .unsqueeze(1);
}

}  // namespace tandem
