#pragma once
#include "nn/linear.h"

namespace tandem {

/// silu(gate) * up, computed in float32 (float64 for float64) with one rounding at the end.
Tensor swiglu(const Tensor& gate, const Tensor& up);

/// down(swiglu(gate(x), up(x))). Parameters: gate_proj, up_proj [ffn_dim, d_model], down_proj [d_model, ffn_dim].
class SwiGluImpl : public Module {
 public:
  SwiGluImpl(int64_t d_model, int64_t ffn_dim);
  Tensor forward(const Tensor& x) const;

 private:
  Linear gate_proj_{nullptr}, up_proj_{nullptr}, down_proj_{nullptr};
};
TORCH_MODULE(SwiGlu);

}  // namespace tandem
