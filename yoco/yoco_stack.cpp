#include "yoco/yoco_stack.h"

namespace tandem {
namespace {

struct YocoState : StackState {
  YocoState(LayerStates self_decoder_states, KvCache shared_cache)
      : self_decoder(std::move(self_decoder_states)), shared_kv(std::move(shared_cache)) {}
  LayerStates self_decoder;
  KvCache shared_kv;

  std::unique_ptr<StackState> select(const Tensor& rows) const override {
    auto selected = std::make_unique<YocoState>(self_decoder.select(rows), shared_kv.select(rows));
    selected->lengths = lengths.index_select(0, rows);
    return selected;
  }
  std::vector<std::pair<std::string, Tensor>> tensors() const override {
    auto named = self_decoder.tensors("self_decoder.");
    named.emplace_back("shared_kv.keys", shared_kv.keys());
    named.emplace_back("shared_kv.values", shared_kv.values());
    return named;
  }
};

/// x for one of two readers, whose gradients are summed before they meet the other's: the order of
/// that sum, and so its bits, does not depend on whether a reader recomputes its layers.
Tensor branch(const Tensor& x) { return x.view_as(x); }

}  // namespace

YocoStack::YocoStack(const YocoStackConfig& config)
    : d_model_(config.d_model),
      n_layers_(config.self_decoder.n_layers + config.cross_decoder.n_layers),
      unstacked_(config.cross_decoder.input == "embeddings") {
  const MixerSpec self_spec{config.d_model, config.norm_eps, config.rope};
  MixerSpec cross_spec = self_spec;
  const CrossDecoderConfig& cross = config.cross_decoder;
  cross_spec.rope = resolved_rope(cross.rope, config.rope);
  const SharedKvSpec kv_spec{config.d_model,  cross.n_kv_heads.value_or(cross.n_heads),
                             cross.head_dim,  config.norm_eps,
                             cross_spec.rope, cross.qkv_bias};
  self_decoder_ = register_module(
      "self_decoder",
      std::make_shared<SelfDecoder>(config.self_decoder, self_spec, config.ffn_dim));
  shared_kv_ = register_module("shared_kv", std::make_shared<SharedKvMaker>(kv_spec));
  cross_decoder_ = register_module(
      "cross_decoder", std::make_shared<CrossDecoder>(cross, cross_spec, config.ffn_dim));
  final_norm_ = register_module("final_norm", RmsNorm(config.d_model, config.norm_eps));
}

Tensor YocoStack::forward(const Tensor& x, const ForwardContext& context, StackState* state,
                          Want want) {
  auto* own = dynamic_cast<YocoState*>(state);
  TORCH_CHECK(!state || own, "YocoStack was given the state of another stack");
  TORCH_CHECK(want != Want::kSome || !state, "Want::kSome is for training: no state goes with it");
  const Tensor h = self_decoder_->forward(
      unstacked_ ? branch(x) : x, context,
      own ? &own->self_decoder : nullptr);  // [B, T, D], state of constant size
  const SharedKv kv = shared_kv_->forward(
      h, context, own ? &own->shared_kv : nullptr);  // [B, S, G, K], the one cache that grows
  if (state) state->lengths = lengths_after(state->lengths, context, x.size(1));
  const Tensor y = unstacked_ ? branch(x) : h;  // [B, T, D], where the cross-decoder begins
  switch (want) {
    case Want::kNothing:
      return {};       // a prompt's inner piece: YOCO, sec. 3.3
    case Want::kLast:  // early exit: [B, 1, D]
      return final_norm_->forward(
          cross_decoder_->forward(last_of_each_row(y, context), kv, context.at_last()));
    case Want::kSome:  // the same in training: [B, N, D]
      return final_norm_->forward(
          cross_decoder_->forward(at_columns(y, context.wanted), kv, context.at(context.wanted)));
    case Want::kAll:
      break;
  }
  return final_norm_->forward(cross_decoder_->forward(y, kv, context));  // [B, T, D]
}

std::unique_ptr<StackState> YocoStack::make_state(const StateShape& shape) const {
  auto state = std::make_unique<YocoState>(self_decoder_->layers().make_states(shape),
                                           shared_kv_->make_cache(shape));
  state->lengths =
      torch::zeros({shape.batch}, torch::TensorOptions().dtype(torch::kInt64).device(shape.device));
  return state;
}

Flops YocoStack::forward_flops(Phase phase, int64_t length, int64_t batch) const {
  const double rows = static_cast<double>(batch), n = static_cast<double>(length);
  const double n_tokens = rows * tokens_of(phase, length);
  // A prompt passes the cross-decoder with its last token only; training passes it with all, whose
  // keys make a triangle.
  const double n_queries = phase == Phase::kTrain ? n_tokens : rows;
  double n_pairs = rows * n;
  if (phase == Phase::kTrain) n_pairs = rows * n * (n + 1) / 2;
  if (phase == Phase::kDecode) n_pairs = rows * (n + 1);
  return {{{"self_decoder", self_decoder_->layers().forward_flops(phase, length, batch)},
           {"shared_kv", shared_kv_->forward_flops(n_tokens)},
           {"cross_decoder", cross_decoder_->forward_flops(n_queries, n_pairs)}}};
}

StateBytes YocoStack::state_bytes(int64_t length, torch::Dtype dtype) const {
  return {{{"self_decoder", self_decoder_->layers().state_bytes(length, dtype)},
           {"shared_kv", shared_kv_->state_bytes(length, dtype)}}};
}

// The cross-decoder sends nothing: its keys and values are there.
SequenceBytes YocoStack::sequence_bytes(const SequencePass& pass) const {
  SequenceBytes sent = self_decoder_->layers().sequence_bytes(pass, "self_decoder");
  sent.parts.emplace_back("shared_kv", shared_kv_->sequence_bytes(pass));
  return sent;
}

}  // namespace tandem
