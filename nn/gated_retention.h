#pragma once
#include "nn/retention_base.h"

// Gated retention (YOCO, sec. 3.1 and appendix): S_t = exp(a_t) S_{t-1} + k_t^T v_t, o_t = q_t S_t, with a_t <= 0 one log-decay per head and
// token. Decays are exp(c_t - c_s) of pairs, masked before the exponential: closed gates neither overflow nor give NaN. Documents are kept apart by segment
// equality in the score matrix, on the carried state and on its update.

namespace tandem {

struct Retention {
  Tensor output;       // [B, T, H, V]
  Tensor final_state;  // [B, H, K, V]
};

/// q, k: [B, T, H, K]; v: [B, T, H, V]; log_decay: [B, T, H], <= 0, in float32 (float64 for float64). segment: [B, T] int32 or undefined.
/// initial_state: [B, H, K, V] or undefined (0); initial_segment: [B] int32, the document the state belongs to (undefined: that of the first token).
/// A segment of -1 is padding: it adds nothing to the state and does not decay it. Chunkwise with `chunk` tokens; differentiable in every float input.
Retention gated_retention(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& log_decay, const Tensor& segment = {},
                          const Tensor& initial_state = {}, const Tensor& initial_segment = {}, int64_t chunk = 64);
/// The other two forms of the paper: token by token, and all pairs at once.
Retention gated_retention_recurrent(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& log_decay, const Tensor& segment = {},
                                    const Tensor& initial_state = {}, const Tensor& initial_segment = {});
Retention gated_retention_parallel(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& log_decay, const Tensor& segment = {},
                                   const Tensor& initial_state = {}, const Tensor& initial_segment = {});

struct GatedRetentionConfig {
  int64_t n_heads = 4;
  int64_t head_dim = 64;                 // channels per head of q, k and v
  double temperature = 16;               // log-decay = logsigmoid(gate) / temperature
  int64_t chunk = 64;                    // tokens handled at once; changes rounding only
  template <typename Visitor>
  void fields(Visitor& visit) {
    visit.value("n_heads", n_heads, at_least(1));
    visit.value("head_dim", head_dim, even());
    visit.value("temperature", temperature, above(0));
    visit.value("chunk", chunk, at_least(1));
  }
};

/// Retention whose decay is computed from each token (YOCO, sec. 3.1). Parameters: those of RetentionBase and gate_proj [H, D], the decay's.
class GatedRetention : public RetentionBase {
 public:
  GatedRetention(const GatedRetentionConfig& config, const MixerSpec& spec);
  double forward_flops(Phase phase, int64_t length, int64_t batch) const override;

 private:
  Tensor log_decay(const Tensor& x) const override;
  double temperature_;
  Linear gate_proj_{nullptr};
};

}  // namespace tandem
