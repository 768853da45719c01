#include "nn/gated_retention.h"

#include <cmath>

namespace tandem {

GatedRetention::GatedRetention(const GatedRetentionConfig& config, const MixerSpec& spec)
    : RetentionBase({config.n_heads, config.head_dim, config.chunk}, spec),
      temperature_(config.temperature) {
  const auto init = init_xavier_uniform(spec.d_model, config.n_heads, std::exp2(-2.5));
  gate_proj_ =
      register_module("gate_proj", Linear(spec.d_model, config.n_heads, init, Split::kRows));
  register_o_proj();
}

Tensor GatedRetention::log_decay(const Tensor& x) const {
  const auto gate = gate_proj_->forward(x);  // [B, T, H]
  return torch::log_sigmoid(gate.to(float_or_wider(gate.scalar_type()))) /
         temperature_;  // YOCO, sec. 3.1
}

double GatedRetention::forward_flops(Phase phase, int64_t length, int64_t batch) const {
  const double n_tokens = static_cast<double>(phase == Phase::kDecode ? 1 : length) * batch;
  const double gates = 2.0 * spec_.d_model * shape_.n_heads * n_tokens;
  return RetentionBase::forward_flops(phase, length, batch) + gates;
}

}  // namespace tandem
