#include "nn/decoder_layer.h"

#include "nn/layer_runner.h"

namespace tandem {

DecoderLayer::DecoderLayer(std::shared_ptr<TokenMixer> mixer, int64_t d_model, int64_t ffn_dim,
                           double norm_eps)
    : d_model_(d_model), ffn_dim_(ffn_dim), mixer_(std::move(mixer)) {
  mixer_norm_ = register_module("mixer_norm", RmsNorm(d_model, norm_eps));
  register_module("mixer", mixer_);
  ffn_norm_ = register_module("ffn_norm", RmsNorm(d_model, norm_eps));
  ffn_ = register_module("ffn", SwiGlu(d_model, ffn_dim));
}

Tensor DecoderLayer::forward(const Tensor& x, const ForwardContext& context, MixerState* state) {
  const auto layer = [this, context, state](const Tensors& inputs) -> Tensors {
    const auto h = inputs[0] + mixer_->forward(mixer_norm_->forward(inputs[0]), context, state);
    return {h + ffn_->forward(ffn_norm_->forward(h))};
  };
  return run_layer(context, *this, {x}, layer)[0];
}

double DecoderLayer::ffn_flops(double n_tokens) const {
  return swiglu_flops(d_model_, ffn_dim_, n_tokens);
}

}  // namespace tandem
