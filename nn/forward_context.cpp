#include "nn/forward_context.h"

#include "comm/communicator.h"
#include "nn/sequence_parallel.h"

namespace tandem {
namespace {

/// last_of_each_row where ranks divide the rows: the rank that holds a row's last token gives it to
/// all.
Tensor last_of_divided_rows(const Tensor& x, const ForwardContext& context) {
  const auto [rank, size] = part_of(context.sequence);
  const int64_t n = x.size(1);
  const Tensor column =
      row_lengths_of(context, n).sub(1).clamp_min(0).unsqueeze(1) - rank * n;  // [B, 1]
  const Tensor here = (column.ge(0) & column.lt(n)).unsqueeze(2);              // [B, 1, 1]
  Tensor last = at_columns(x, column.clamp(0, n - 1)).masked_fill(~here, 0).contiguous();
  context.sequence->all_reduce(last, Reduction::kSum)->wait();
  return last;
}

}  // namespace

Tensor at_columns(const Tensor& x, const Tensor& columns) {
  if (x.dim() == 2) return x.gather(/*dim=*/1, columns);
  return x.gather(/*dim=*/1, columns.unsqueeze(2).expand({-1, -1, x.size(2)}));
}

Tensor last_of_each_row(const Tensor& x, const ForwardContext& context) {
  if (is_divided(context)) return last_of_divided_rows(x, context);
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
  if (is_divided(*this)) {
    ForwardContext there = *this;
    const int64_t n_tokens = positions.size(1);
    const Tensor last = row_lengths_of(*this, n_tokens).sub(1).clamp_min(0).unsqueeze(1);
    there.positions = first_position(*this) + last;  // [B, 1]
    there.lengths = torch::ones({positions.size(0)}, positions.options());
    there.row_lengths = Tensor();
    there.sequence = nullptr;  // from here on every rank has all there is
    return there;
  }
  const auto last = lengths.defined() ? lengths.sub(1).clamp_min(0).unsqueeze(1)  // [B, 1]
                                      : torch::full({positions.size(0), 1}, positions.size(1) - 1,
                                                    positions.options());
  ForwardContext there = at(last);
  there.lengths = torch::ones({positions.size(0)}, positions.options());
  return there;
}

}  // namespace tandem
