#include "nn/extend_arguments.h"

namespace tandem {

void check_extend_arguments(const Tensor& tokens, const Tensor& lengths, int64_t batch,
                            int64_t shortest) {
  TORCH_CHECK(tokens.dim() == 2 && tokens.size(0) == batch && tokens.size(1) > 0,
              "extend: tokens are ", tokens.sizes(), ", expected [", batch, ", T]");
  if (!lengths.defined()) return;
  TORCH_CHECK(lengths.dim() == 1 && lengths.size(0) == batch, "extend: lengths are ",
              lengths.sizes(), ", expected [", batch, "]");
  if (!lengths.is_cpu()) return;
  const auto [least, most] = at::aminmax(lengths);
  TORCH_CHECK(least.item<int64_t>() >= shortest && most.item<int64_t>() <= tokens.size(1),
              "extend: lengths from ", least.item<int64_t>(), " to ", most.item<int64_t>(),
              ", expected ", shortest, " to ", tokens.size(1));
}

void check_ids(const Tensor& ids, int64_t least, int64_t vocab_size) {
  if (!ids.is_cpu() || ids.numel() == 0) return;
  const auto [lowest, highest] = at::aminmax(ids);
  TORCH_CHECK(lowest.item<int64_t>() >= least && highest.item<int64_t>() < vocab_size,
              "token ids from ", lowest.item<int64_t>(), " to ", highest.item<int64_t>(),
              ", expected ", least, " to ", vocab_size - 1);
}

}  // namespace tandem
