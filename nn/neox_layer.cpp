#include "nn/neox_layer.h"

#include "nn/layer_runner.h"

namespace tandem {

NeoxLayer::NeoxLayer(const NeoxLayerSpec& spec) : spec_(spec) {
  const Init init = init_normal(kNeoxStd);
  const FullAttentionConfig attention{
      .n_heads = spec.n_heads, .n_kv_heads = {}, .head_dim = spec.head_dim, .bias = true};
  mixer_norm_ = register_module("mixer_norm", LayerNorm(spec.d_model, spec.norm_eps));
  mixer_ = register_module("mixer",
                           std::make_shared<FullAttention>(
                               attention, MixerSpec{spec.d_model, spec.norm_eps, spec.rope, init}));
  ffn_norm_ = register_module("ffn_norm", LayerNorm(spec.d_model, spec.norm_eps));
  const auto ffn = register_module("ffn", std::make_shared<Module>());
  up_proj_ = ffn->register_module(
      "up_proj", Linear(spec.d_model, spec.ffn_dim, init, Split::kRows, /*bias=*/true));
  down_proj_ = ffn->register_module(
      "down_proj", Linear(spec.ffn_dim, spec.d_model, init, Split::kColumns, /*bias=*/true));
}

Tensor NeoxLayer::forward(const Tensor& x, const ForwardContext& context, MixerState* state) {
  const auto layer = [this, context, state](const Tensors& inputs) -> Tensors {
    const auto& h = inputs[0];
    const auto ffn = [&](const Tensor& y) {
      const auto up = up_proj_->forward(copy_to_group(ffn_norm_->forward(y), tensor_group()));
      return down_proj_->forward(at::gelu(up, spec_.activation == "gelu_tanh" ? "tanh" : "none"));
    };
    const auto mixed = mixer_->forward(mixer_norm_->forward(h), context, state);
    if (spec_.parallel_residual) return {ffn(h) + mixed + h};
    const auto y = mixed + h;
    return {ffn(y) + y};
  };
  return run_layer(context, *this, {x}, layer)[0];
}

double NeoxLayer::ffn_flops(double n_tokens) const {
  return 4 * static_cast<double>(spec_.d_model) * static_cast<double>(spec_.ffn_dim) * n_tokens;
}

}  // namespace tandem
