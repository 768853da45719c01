#pragma once
#include <memory>
#include <optional>

#include "nn/language_model.h"
#include "nn/linear.h"

namespace tandem {

/// The part of a model that is not its stack.
struct TokenEnds {
  int64_t vocab_size = 0;
  int64_t n_layers = 0;         // for reports
  bool tie_embeddings = false;  // the head reads embedding.weight
  bool embedding_scale = false; // embeddings times sqrt(d_model)
  Init embedding_init, head_init;
  int64_t max_positions = 0;    // learned positions [max_positions, D], drawn like embeddings and added to them; 0 = none
};

/// Throws c10::Error while it is absent.
int64_t given_vocab_size(const std::optional<int64_t>& vocab_size);

/// The ends that a family's config asks for, its head drawn as a linear layer's weight. Throws c10::Error while vocab_size is absent.
template <typename Config>
TokenEnds token_ends(const Config& config, int64_t n_layers, double embedding_std) {
  return {given_vocab_size(config.vocab_size), n_layers, config.tie_embeddings, config.embedding_scale, init_normal(embedding_std),
          init_kaiming_uniform(config.d_model)};
}

/// Where a state's shape names ranks that divide rows, each is given whole calls; extend computes its own columns of calls as long as there are ranks, so prompts are prefilled by all. Results and states
/// are those of whole rows on every rank, so that decoding goes on anywhere.
/// Embedding, a DecoderStack, a head: what YOCO, Transformer and hybrids are. The stack's children are registered as children of the model itself, so names
/// begin with `self_decoder.`, `layers.` and so on. Parameters of its own: embedding.weight [V, D], position_embedding.weight, head.weight [V, D] unless tied.
class StackLanguageModel : public LanguageModel {
 public:
  StackLanguageModel(std::shared_ptr<DecoderStack> stack, const TokenEnds& ends);
  Loss loss(const Batch& batch, const ForwardContext& context) override;
  std::unique_ptr<ModelState> make_state(const StateShape& shape) const override;
  Tensor extend(const Tensor& tokens, const Tensor& lengths, ModelState& state, Want want) override;
  Tensor extend_nll(const Tensor& tokens, const Tensor& targets, const Tensor& lengths, ModelState& state) override;
  Packing packing() const override { return {.max_length = ends_.max_positions}; }
  int64_t vocab_size() const override { return ends_.vocab_size; }
  int64_t n_layers() const override { return ends_.n_layers; }
  Flops flops(Phase phase, int64_t length, int64_t batch) const override;
  StateBytes state_bytes(int64_t length, torch::Dtype dtype) const override;
  std::string why_not_sequence_parallel() const override { return {}; }
  SequenceBytes sequence_bytes(const SequencePass& pass) const override { return stack_->sequence_bytes(pass); }

 private:
  const Tensor& head_weight() const;
  HeldRows head_part() const;
  Tensor embed(const Tensor& tokens, const ForwardContext& context) const;
  Tensor learned_positions(const ForwardContext& context) const;
  std::shared_ptr<DecoderStack> stack_;
  TokenEnds ends_;
  Embedding embedding_{nullptr}, position_embedding_{nullptr};
  Linear head_{nullptr};
};

}  // namespace tandem
