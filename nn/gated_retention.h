#pragma once
#include "nn/retention_base.h"

namespace tandem {

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
