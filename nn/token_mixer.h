#pragma once
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/config.h"
#include "nn/cost.h"
#include "nn/forward_context.h"
#include "nn/rope.h"
#include "nn/state.h"

namespace tandem {

/// The part of a layer that moves information along the sequence.
class TokenMixer : public Module {
 public:
  /// Mixes x: [B, T, D], already normalised, into [B, T, D] without the residual.
  /// Without `state`: whole training sequences, documents apart as `context.segment` says. With it: continues each row by its
  /// `context.lengths` tokens (all T when undefined); T > 1 is prefill, T == 1 a decode step. Training and decoding agree, and
  /// output columns past a row's length are finite and otherwise meaningless.
  /// Throws c10::Error when D, or the B of `state`, is not what the mixer was made for.
  virtual Tensor forward(const Tensor& x, const ForwardContext& context, MixerState* state) = 0;
  virtual std::unique_ptr<MixerState> make_state(const StateShape& shape) const = 0;  ///< empty
  /// Multiply-adds times two of one forward pass over `batch` rows, linear layers included: kTrain and kPrefill of `length` tokens (of softmax
  /// the causal half, of retention whole squares as they are computed), kDecode of one token with `length` tokens in its context.
  virtual double forward_flops(Phase phase, int64_t length, int64_t batch) const = 0;
  /// Bytes of the state of one row that holds `length` tokens, keys and values in `dtype`.
  virtual int64_t state_bytes(int64_t length, torch::Dtype dtype) const = 0;
  /// Bytes that a rank sends for one layer where ranks divide rows; 0 of a mixer that needs nothing of other ranks.
  virtual double sequence_bytes(const SequencePass&) const { return 0; }
};

/// Whether `lengths` [B] (undefined: yes) is n_tokens in every row. Read on a CPU only: elsewhere asking would wait for the device, so no is the answer.
bool rows_are_full(const Tensor& lengths, int64_t n_tokens);

/// What a mixer is built for, beyond its own config.
struct MixerSpec {
  int64_t d_model = 0;
  double norm_eps = 1e-5;
  RopeConfig rope = {};  // the decoder's
  std::optional<Init> init = {};  // of the attention mixers' projections; absent: as linear layers are drawn
};

/// The table of mixers by name: gated_retention, retention, sliding_window, full_attention.
std::span<const Option> mixer_options();
/// A Choice out of that table, for fields().
Choice mixer_choice(const std::string& name);
std::shared_ptr<TokenMixer> make_mixer(const Choice& choice, const MixerSpec& spec);
/// One for each of `n_layers` layers: layer i takes pattern[i % size].
std::vector<std::shared_ptr<TokenMixer>> make_mixers(const std::vector<Choice>& pattern, int64_t n_layers, const MixerSpec& spec);

}  // namespace tandem
