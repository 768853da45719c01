#include "nn/layer_stack.h"

#include "nn/full_attention.h"
#include "nn/sequence_parallel.h"

namespace tandem {
namespace {

struct LayerStackState : StackState {
  LayerStates states;

  std::unique_ptr<StackState> select(const Tensor& rows) const override {
    auto selected = std::make_unique<LayerStackState>();
    selected->lengths = lengths.index_select(0, rows);
    selected->states = states.select(rows);
    return selected;
  }
  std::vector<std::pair<std::string, Tensor>> tensors() const override {
    return states.tensors("");
  }
};

std::vector<std::shared_ptr<TokenMixer>> attention_of_each_layer(const LayerStackConfig& config) {
  const FullAttentionConfig attention{.n_heads = config.n_heads,
                                      .n_kv_heads = config.n_kv_heads,
                                      .head_dim = config.head_dim,
                                      .qkv_bias = config.qkv_bias,
                                      .qk_norm_eps = config.qk_norm_eps};
  const MixerSpec spec{config.d_model, config.norm_eps, config.rope};
  std::vector<std::shared_ptr<TokenMixer>> mixers;
  for (int64_t i = 0; i < config.n_layers; ++i)
    mixers.push_back(std::make_shared<FullAttention>(attention, spec));
  return mixers;
}

}  // namespace

LayerStates LayerStates::select(const Tensor& rows) const {
  LayerStates selected;
  for (const auto& layer : layers) selected.layers.push_back(layer->select(rows));
  return selected;
}

std::vector<std::pair<std::string, Tensor>> LayerStates::tensors(const std::string& prefix) const {
  std::vector<std::pair<std::string, Tensor>> named;
  for (size_t i = 0; i < layers.size(); ++i) {
    for (auto& [name, tensor] : layers[i]->tensors()) {
      named.emplace_back(prefix + "layers." + std::to_string(i) + ".mixer." + name, tensor);
    }
  }
  return named;
}

Layers make_decoder_layers(const std::vector<std::shared_ptr<TokenMixer>>& mixers, int64_t d_model,
                           int64_t ffn_dim, double norm_eps) {
  Layers layers;
  for (const auto& mixer : mixers)
    layers.push_back(std::make_shared<DecoderLayer>(mixer, d_model, ffn_dim, norm_eps));
  return layers;
}

DecoderLayers::DecoderLayers(Layers layers) : layers_(std::move(layers)) {
  for (size_t i = 0; i < layers_.size(); ++i) register_module(std::to_string(i), layers_[i]);
}

Tensor DecoderLayers::forward(Tensor x, const ForwardContext& context, LayerStates* states) {
  for (size_t i = 0; i < layers_.size(); ++i) {
    x = layers_[i]->forward(x, context, states ? states->layers[i].get() : nullptr);
  }
  return x;
}

LayerStates DecoderLayers::make_states(const StateShape& shape) const {
  LayerStates states;
  for (const auto& layer : layers_) states.layers.push_back(layer->mixer().make_state(shape));
  return states;
}

double DecoderLayers::forward_flops(Phase phase, int64_t length, int64_t batch) const {
  const double n_tokens = static_cast<double>(tokens_of(phase, length)) * batch;
  double flops = 0;
  for (const auto& layer : layers_) {
    flops += layer->mixer().forward_flops(phase, length, batch) + layer->ffn_flops(n_tokens);
  }
  return flops;
}

int64_t DecoderLayers::state_bytes(int64_t length, torch::Dtype dtype) const {
  int64_t bytes = 0;
  for (const auto& layer : layers_) bytes += layer->mixer().state_bytes(length, dtype);
  return bytes;
}

SequenceBytes DecoderLayers::sequence_bytes(const SequencePass& pass,
                                            const std::string& part) const {
  double bytes = 0, gathered = 0;
  int64_t n_gathers = 0;
  for (const auto& layer : layers_) {
    const bool gathers = dynamic_cast<const FullAttention*>(&layer->mixer()) != nullptr;
    (gathers ? gathered : bytes) += layer->mixer().sequence_bytes(pass);
    n_gathers += gathers;
  }
  SequenceBytes sent;
  if (n_gathers < count()) sent.parts.emplace_back(part, bytes);
  if (n_gathers > 0) {
    sent.parts.emplace_back(part + " (" + std::to_string(n_gathers) +
                                " of full attention gather all keys and values each)",
                            gathered);
  }
  return sent;
}

LayerStack::LayerStack(Layers layers, int64_t d_model, std::shared_ptr<NormImpl> final_norm)
    : d_model_(d_model),
      layers_(register_module("layers", std::make_shared<DecoderLayers>(std::move(layers)))),
      final_norm_(register_module("final_norm", std::move(final_norm))) {}

LayerStack::LayerStack(const std::vector<std::shared_ptr<TokenMixer>>& mixers, int64_t d_model,
                       int64_t ffn_dim, double norm_eps)
    : LayerStack(make_decoder_layers(mixers, d_model, ffn_dim, norm_eps), d_model,
                 std::make_shared<RmsNormImpl>(d_model, norm_eps)) {}

LayerStack::LayerStack(const LayerStackConfig& config)
    : LayerStack(attention_of_each_layer(config), config.d_model, config.ffn_dim, config.norm_eps) {
}

Tensor LayerStack::forward(const Tensor& x, const ForwardContext& context, StackState* state,
                           Want want) {
  auto* own = dynamic_cast<LayerStackState*>(state);
  TORCH_CHECK(!state || own, "LayerStack was given the state of another stack");
  TORCH_CHECK(want != Want::kSome || !state, "Want::kSome is for training: no state goes with it");
  const Tensor h = layers_->forward(x, context, own ? &own->states : nullptr);  // [B, T, D]
  if (state) state->lengths = lengths_after(state->lengths, context, x.size(1));
  switch (want) {
    case Want::kNothing:
      return {};
    case Want::kLast:
      return final_norm_->forward(last_of_each_row(h, context));  // [B, 1, D]
    case Want::kSome:
      return final_norm_->forward(at_columns(h, context.wanted));  // [B, N, D]
    case Want::kAll:
      break;
  }
  return final_norm_->forward(h);
}

std::unique_ptr<StackState> LayerStack::make_state(const StateShape& shape) const {
  auto state = std::make_unique<LayerStackState>();
  state->lengths =
      torch::zeros({shape.batch}, torch::TensorOptions().dtype(torch::kInt64).device(shape.device));
  state->states = layers_->make_states(shape);
  return state;
}

Flops LayerStack::forward_flops(Phase phase, int64_t length, int64_t batch) const {
  return {{{"layers", layers_->forward_flops(phase, length, batch)}}};
}

StateBytes LayerStack::state_bytes(int64_t length, torch::Dtype dtype) const {
  return {{{"layers", layers_->state_bytes(length, dtype)}}};
}

SequenceBytes LayerStack::sequence_bytes(const SequencePass& pass) const {
  return layers_->sequence_bytes(pass, "layers");
}

Tensor lengths_after(const Tensor& lengths, const ForwardContext& context, int64_t n_tokens) {
  if (is_divided(context)) return lengths + row_lengths_of(context, n_tokens);
  return context.lengths.defined() ? lengths + context.lengths : lengths + n_tokens;
}

}  // namespace tandem
