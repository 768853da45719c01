#pragma once
#include <memory>

#include "nn/cost.h"
#include "nn/forward_context.h"
#include "nn/state.h"

namespace tandem {

/// Which outputs are wanted: of no position, of each row's last, of those that context.wanted names (training only), of all.
enum class Want { kNothing, kLast, kSome, kAll };

/// Embeddings [B, T, D] in, embeddings out, with state and early exit. Llama-like layers, GPT-NeoX layers and the YOCO decoder-decoder are
/// stacks; a Block Transformer takes any stack as its block decoder.
class DecoderStack : public Module {
 public:
  /// Output after the final norm: [B, T, D] for kAll, [B, N, D] for kSome, [B, 1, D] for kLast, undefined for kNothing. Without `state`: training. With it: continues
  /// each row by context.lengths tokens and adds them to state->lengths. A stack may leave out work that only
  /// unwanted outputs need: YocoStack leaves out its cross-decoder.
  virtual Tensor forward(const Tensor& x, const ForwardContext& context, StackState* state, Want want) = 0;
  virtual std::unique_ptr<StackState> make_state(const StateShape& shape) const = 0;
  virtual int64_t d_model() const = 0;
  virtual int64_t n_layers() const = 0;  // for reports
  /// Forward FLOPs by part of `batch` rows, as TokenMixer::forward_flops counts; kPrefill counts with the early exit (Want::kLast).
  virtual Flops forward_flops(Phase phase, int64_t length, int64_t batch) const = 0;
  virtual StateBytes state_bytes(int64_t length, torch::Dtype dtype) const = 0;
  /// Bytes that a rank sends where ranks divide rows.
  virtual SequenceBytes sequence_bytes(const SequencePass&) const { return {}; }
};

}  // namespace tandem
