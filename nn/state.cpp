#include "nn/state.h"

namespace tandem {

Tensor positions_after(const Tensor& lengths, int64_t n_tokens) {
  return lengths.unsqueeze(1) + torch::arange(n_tokens, lengths.options());  // [B, T]
}

}  // namespace tandem
