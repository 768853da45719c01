#include "nn/decoder_layer.h"

#include "nn/layer_runner.h"

namespace tandem {

DecoderLayer::DecoderLayer(std::shared_ptr<TokenMixer> mixer, int64_t d_model, int64_t ffn_dim,
                           double norm_eps)
    : mixer_(std::move(mixer)) {
  mixer_norm_ = register_module("mixer_norm", RmsNorm(d_model, norm_eps));
  register_module("mixer", mixer_);
  ffn_norm_ = register_module("ffn_norm", RmsNorm(d_model, norm_eps));
  ffn_ = register_module("ffn", SwiGlu(d_model, ffn_dim));
}

Tensor DecoderLayer::forward(const Tensor& x, const ForwardContext& context, MixerState* state) {
  const auto layer = [this, &context, state](const Tensors& inputs) -> Tensors {
    const auto h = inputs[0] + mixer_->forward(mixer_norm_->forward(inputs[0]), context, state);
    return {h + ffn_->forward(ffn_norm_->forward(h))};
  };
  return run_layer(context, *this, {x}, layer)[0];
}

}  // namespace tandem
