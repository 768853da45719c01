#pragma once
#include <memory>
#include <string>

#include "core/packing.h"
#include "nn/batch.h"
#include "nn/cost.h"
#include "nn/decoder_stack.h"
#include "nn/forward_context.h"
#include "nn/state.h"

namespace tandem {

class DeviceSampler;

/// `sum` is the weighted sum of the scored targets' NLL, differentiable; `nll` [B, T] float32 (float64 for float64 models), detached, NaN where not scored.
struct Loss {
  Tensor sum, nll;
};

/// All that train, eval, generate and bench know of a model.
class LanguageModel : public Module {
 public:
  /// May form dlogits in the forward pass: only `sum` is differentiated. `context` holds what the batch does not: random, runner, sequence, training;
  /// its positions and segment are filled in from the batch by the model.
  virtual Loss loss(const Batch& batch, const ForwardContext& context) = 0;

  virtual std::unique_ptr<ModelState> make_state(const StateShape& shape) const = 0;
  /// Prefill and decode alike. tokens: [B, T] int64, right-padded; lengths: [B] int64 valid tokens (undefined = T each; 0 allowed with kNothing, at
  /// least 1 with kLast). Logits float32: [B, T, V] for kAll, [B, V] for kLast (also left in state.next_logits), undefined for kNothing; NaN where the model gives none
  /// (Packing::unscored_prefix). A model whose Packing pads documents takes kPadding for tokens in front of a row; they count in its lengths.
  virtual Tensor extend(const Tensor& tokens, const Tensor& lengths, ModelState& state, Want want) = 0;
  /// Exact scoring in pieces: NLL [B, T] float32 of `targets` (-100 = not scored: NaN) given all tokens so far, without whole logits.
  virtual Tensor extend_nll(const Tensor& tokens, const Tensor& targets, const Tensor& lengths, ModelState& state) = 0;
  /// Tokens that generate_block adds per call.
  virtual int64_t tokens_per_call() const { return 1; }
  /// Samples what follows and extends by it: [B, tokens_per_call()] int64, kPadding where a row drew nothing, as its prompt had begun the block. Needs extend(kLast) or
  /// generate_block before it. No host synchronisation.
  virtual Tensor generate_block(ModelState& state, DeviceSampler& sampler);

  virtual Packing packing() const = 0;
  virtual int64_t vocab_size() const = 0;
  virtual int64_t n_layers() const = 0;
  /// kTrain: forward and backward of `batch` rows of `length` tokens. kPrefill: a prompt of `length` with logits of its last token. kDecode: one token after `length`.
  virtual Flops flops(Phase phase, int64_t length, int64_t batch) const = 0;
  virtual StateBytes state_bytes(int64_t length, torch::Dtype dtype) const = 0;

  /// Why ranks cannot divide its rows among them (ForwardContext::sequence), for a message; empty = they can.
  virtual std::string why_not_sequence_parallel() const { return "its layers take whole sequences only"; }
  /// Bytes that a rank sends to others when they do.
  virtual SequenceBytes sequence_bytes(const SequencePass&) const { return {}; }
};

}  // namespace tandem
