#include "nn/forward_context.h"

namespace tandem {

Tensor at_columns(const Tensor& x, const Tensor& columns) {
  if (x.dim() == 2) return x.gather(/*dim=*/1, columns);
  return x.gather(/*dim=*/1, columns.unsqueeze(2).expand({-1, -1, x.size(2)}));
}

Tensor last_of_each_row(const Tensor& x, const ForwardContext& context) {
  if (!context.lengths.defined()) return x.narrow(/*dim=*/1, x.size(1) - 1, 1);
  return at_columns(x, context.lengths.sub(1).clamp_min(0).unsqueeze(1));
}

ForwardContext ForwardContext::at(const Tensor& some) const {
  TORCH_CHECK(positions.defined(), "ForwardContext::at: positions are undefined");
  ForwardContext there = *this;
  there.positions = at_columns(positions, some);
  if (segment.defined()) there.segment = at_columns(segment, some);
  if (key_segment.defined()) there.key_segment = at_columns(key_segment, some);
  there.columns = some;
  there.lengths = Tensor();
  there.wanted = Tensor();
  return there;
}

ForwardContext ForwardContext::at_last() const {
  TORCH_CHECK(positions.defined(), "ForwardContext::at_last: positions are undefined");
  const auto last = lengths.defined() ? lengths.sub(1).clamp_min(0).unsqueeze(1)  // [B, 1]
                                      : torch::full({positions.size(0), 1}, positions.size(1) - 1,
                                                    positions.options());
  ForwardContext there = at(last);
  there.lengths = torch::ones({positions.size(0)}, positions.options());
  return there;
}

}  // namespace tandem
