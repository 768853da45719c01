#include "nn/multi_scale_retention.h"

namespace tandem {

Tensor MultiScaleRetention::log_decay(const Tensor& x) const {
  const auto options = x.options().dtype(float_or_wider(x.scalar_type()));
  const auto [begin, count] = local_heads();
  const auto lost = torch::exp2(-5 - torch::arange(begin, begin + count, options));  // [H]
  return torch::log1p(-lost).expand({x.size(0), x.size(1), count});
}

}  // namespace tandem
