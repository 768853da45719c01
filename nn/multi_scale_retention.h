#pragma once
#include "nn/retention_base.h"

namespace tandem {

struct MultiScaleRetentionConfig {
  int64_t n_heads = 4;
  int64_t head_dim = 64;  // channels per head of q, k and v
  int64_t chunk = 64;     // tokens handled at once; changes rounding only
  template <typename Visitor>
  void fields(Visitor& visit) {
    visit.value("n_heads", n_heads, at_least(1));
    visit.value("head_dim", head_dim, even());
    visit.value("chunk", chunk, at_least(1));
  }
};

/// Retention whose heads forget at fixed rates: head h of H keeps 1 - 2^(-5-h) of its state at each token ("Retentive Network: A Successor to
/// Transformer for Large Language Models", arXiv 2307.08621, sec. 2.2). All else is as in gated retention, values as wide as keys included, which is how
/// YOCO compares with it. Parameters: those of RetentionBase.
class MultiScaleRetention : public RetentionBase {
 public:
  MultiScaleRetention(const MultiScaleRetentionConfig& config, const MixerSpec& spec)
      : RetentionBase({config.n_heads, config.head_dim, config.chunk}, spec) {
    register_o_proj();
  }

 private:
  Tensor log_decay(const Tensor& x) const override;
};

}  // namespace tandem
