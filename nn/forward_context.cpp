#include "nn/forward_context.h"

namespace tandem {

Tensor last_of_each_row(const Tensor& x, const ForwardContext& context) {
  if (!context.lengths.defined()) return x.narrow(/*dim=*/1, x.size(1) - 1, 1);
  auto index = context.lengths.sub(1).unsqueeze(1);  // [B, 1]
  if (x.dim() == 3) index = index.unsqueeze(2).expand({-1, 1, x.size(2)});
  return x.gather(/*dim=*/1, index);
}

ForwardContext ForwardContext::at_last() const {
  TORCH_CHECK(positions.defined(), "ForwardContext::at_last: positions are undefined");
  ForwardContext last = *this;
  last.positions = last_of_each_row(positions, *this);
  if (segment.defined()) last.segment = last_of_each_row(segment, *this);
  last.lengths = torch::ones({positions.size(0)}, positions.options());
  return last;
}

}  // namespace tandem
