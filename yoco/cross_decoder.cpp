#include "yoco/cross_decoder.h"

#include "nn/layer_runner.h"
#include "nn/sequence_parallel.h"

namespace tandem {

CrossAttention::CrossAttention(const CrossDecoderConfig& config, int64_t d_model,
                               const RopeConfig& rope)
    : head_dim_(config.head_dim), rope_(rope) {
  const int64_t width = config.n_heads * head_dim_;
  q_proj_ =
      register_module("q_proj", Linear(d_model, width, init_kaiming_uniform(d_model), Split::kRows,
                                       config.qkv_bias, /*split_unit=*/head_dim_));
  o_proj_ =
      register_module("o_proj", Linear(width, d_model, init_kaiming_uniform(width), Split::kColumns,
                                       /*bias=*/false, /*split_unit=*/head_dim_));
  if (config.q_norm_eps)
    q_norm_ = register_module("q_norm", HeadNorm(head_dim_, *config.q_norm_eps));
}

Tensor CrossAttention::forward(const Tensor& x, const Tensor& keys, const Tensor& values,
                               const RopeTable& table, const AttendMask& mask) {
  Tensor q = q_proj_->forward(copy_to_group(x, tensor_group()))
                 .unflatten(-1, {-1, head_dim_});  // [B, T, H, K]
  if (q_norm_) q = q_norm_->forward(q);
  const Tensor mixed = attend(apply_rope(q, table, rope_), keys, values, mask);  // [B, T, H, K]
  return o_proj_->forward(mixed.flatten(2));
}

CrossLayer::CrossLayer(const CrossDecoderConfig& config, const MixerSpec& spec, int64_t ffn_dim) {
  mixer_norm_ = register_module("mixer_norm", RmsNorm(spec.d_model, spec.norm_eps));
  mixer_ =
      register_module("mixer", std::make_shared<CrossAttention>(config, spec.d_model, spec.rope));
  ffn_norm_ = register_module("ffn_norm", RmsNorm(spec.d_model, spec.norm_eps));
  ffn_ = register_module("ffn", SwiGlu(spec.d_model, ffn_dim));
}

Tensor CrossLayer::forward(const Tensor& x, const SharedKv& kv, const RopeTable& table,
                           const AttendMask& mask, const ForwardContext& context) {
  // Keys and values are inputs, not captures: their gradients come from every layer, recomputed or
  // not.
  const auto f = [this, table, mask](const Tensors& inputs) -> Tensors {
    const Tensor y =
        mixer_->forward(mixer_norm_->forward(inputs[0]), inputs[1], inputs[2], table, mask) +
        inputs[0];
    return {ffn_->forward(ffn_norm_->forward(y)) + y};
  };
  return run_layer(context, *this, {x, kv.keys, kv.values}, f)[0];
}

CrossDecoder::CrossDecoder(const CrossDecoderConfig& config, const MixerSpec& spec, int64_t ffn_dim)
    : config_(config), spec_(spec), ffn_dim_(ffn_dim) {
  const auto layers = register_module("layers", std::make_shared<Module>());
  for (int64_t i = 0; i < config.n_layers; ++i) {
    layers_.push_back(layers->register_module(std::to_string(i),
                                              std::make_shared<CrossLayer>(config, spec, ffn_dim)));
  }
}

Tensor CrossDecoder::forward(Tensor x, const SharedKv& kv, const ForwardContext& context) {
  const RopeTable table =
      make_rope_table(spec_.rope, config_.head_dim, context.positions, x.scalar_type());
  AttendMask mask;
  if (kv.cache) {
    mask = mask_of(*kv.cache, context);
  } else {
    if (context.columns.defined())  // only some of the tokens ask
      mask.query_index = context.columns + kv.begin;
    mask.query_segment = context.segment;
    mask.key_segment = kv.segment;
  }
  for (const auto& layer : layers_) x = layer->forward(x, kv, table, mask, context);
  return is_divided(context) ? depending_on(x, kv.keys) : x;
}

double CrossDecoder::forward_flops(double n_queries, double n_pairs) const {
  const double width = static_cast<double>(config_.n_heads) * config_.head_dim;
  const double projections = 2.0 * 2.0 * spec_.d_model * width * n_queries;
  const double attention = 2.0 * 2.0 * width * n_pairs;
  return config_.n_layers *
         (projections + attention + swiglu_flops(spec_.d_model, ffn_dim_, n_queries));
}

}  // namespace tandem
