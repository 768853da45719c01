#include "nn/sequence_parallel.h"

#include <fmt/format.h>

#include <algorithm>

#include "comm/communicator.h"
#include "core/log.h"
#include "nn/held_group.h"

namespace tandem {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// [n, ...] of what each rank gives.
Tensor all_gathered(const Tensor& x, Communicator& group) {
  const Tensor in = x.contiguous();
  std::vector<int64_t> sizes = {group.size()};
  sizes.insert(sizes.end(), in.sizes().begin(), in.sizes().end());
  Tensor out = torch::empty(sizes, in.options());
  group.all_gather(out, in)->wait();
  return out;
}

struct GatherColumns : torch::autograd::Function<GatherColumns> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, Communicator* group) {
    hold_group(ctx, group);
    ctx->saved_data["dtype"] = x.scalar_type();
    return all_gathered(x, *group).transpose(0, 1).flatten(1, 2);
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    Communicator& group = *held_group(ctx);
    const auto dtype = ctx->saved_data["dtype"].toScalarType();
    const int64_t n = group.size(), n_tokens = gradients[0].size(1) / n;
    const Tensor by_rank = gradients[0]
                               .to(float_or_wider(dtype))
                               .unflatten(1, {n, n_tokens})
                               .transpose(0, 1)
                               .contiguous();  // [n, B, T, ...]
    Tensor own = torch::empty_like(by_rank[0]);
    group.reduce_scatter(own, by_rank, Reduction::kSum)->wait();
    return {own.to(dtype), {}};
  }
};

/// Columns that pass from each rank to the next in turn, for `width` columns before a rank's first:
/// the ranks next to it first, who need not give more than is asked.
std::vector<int64_t> widths_of_shifts(int64_t width, int64_t n_tokens, int64_t ranks) {
  std::vector<int64_t> widths;
  for (int64_t left = width; left > 0 && static_cast<int64_t>(widths.size()) + 1 < ranks;
       left -= n_tokens) {
    widths.push_back(std::min(left, n_tokens));
  }
  return widths;
}

Tensor last_columns(const Tensor& x, int64_t n) {
  return x.narrow(1, x.size(1) - n, n).contiguous();
}

// What arrives in one shift passes on in the next, so each rank's columns walk up the ranks.
struct ColumnsBefore : torch::autograd::Function<ColumnsBefore> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, int64_t width, Communicator* group) {
    const auto widths = widths_of_shifts(width, x.size(1), group->size());
    hold_group(ctx, group);
    ctx->saved_data["widths"] = widths;
    Tensors parts = {x};
    Tensor passing = x;
    for (size_t i = 0; i < widths.size(); ++i) {
      const Tensor sent = last_columns(passing, widths[i]);
      passing = torch::empty_like(sent);
      group->shift(passing, sent)->wait();
      if (group->rank() > static_cast<int64_t>(i)) parts.push_back(passing);
    }
    std::reverse(parts.begin(), parts.end());
    return torch::cat(parts, 1);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    Communicator& group = *held_group(ctx);
    const auto widths = ctx->saved_data["widths"].toIntVector();
    const auto n_shifts = static_cast<int64_t>(widths.size());
    const Tensor& d = gradients[0];  // [B, S, ...], the columns that came last in front
    Tensor returned;                 // gradient of what was sent in the shift after
    int64_t begin = 0;
    for (int64_t i = n_shifts - 1; i >= 0; --i) {
      const int64_t n = widths[static_cast<size_t>(i)];
      auto sizes = d.sizes().vec();
      sizes[1] = n;
      const bool arrived = group.rank() > i;
      Tensor passed = arrived ? d.narrow(1, begin, n).clone(at::MemoryFormat::Contiguous)
                              : torch::zeros(sizes, d.options());
      if (arrived) begin += n;
      if (returned.defined())
        passed.narrow(1, n - returned.size(1), returned.size(1)).add_(returned);
      returned = torch::empty_like(passed);
      group.shift_back(returned, passed)->wait();
    }
    Tensor own = d.slice(1, begin).clone();
    own.narrow(1, own.size(1) - returned.size(1), returned.size(1)).add_(returned);
    return {own, {}, {}};
  }
};

struct Depending : torch::autograd::Function<Depending> {
  static Tensor forward(AutogradContext*, const Tensor& y, const Tensor&) { return y.view_as(y); }
  static variable_list backward(AutogradContext*, const variable_list& gradients) {
    return {gradients[0], {}};
  }
};

}  // namespace

bool is_divided(const ForwardContext& context) {
  return context.sequence != nullptr && context.sequence->size() > 1;
}

RowPart part_of(const Communicator* sequence) {
  if (sequence == nullptr) return {};
  return {sequence->rank(), sequence->size()};
}

Tensor gather_columns(const Tensor& x, Communicator& sequence) {
  return GatherColumns::apply(x, &sequence);
}

Tensor with_columns_before(const Tensor& x, int64_t width, Communicator& sequence) {
  if (width <= 0 || sequence.size() == 1) return x;
  return ColumnsBefore::apply(x, width, &sequence);
}

Tensor depending_on(const Tensor& y, const Tensor& gathered) {
  return Depending::apply(y, gathered);
}

StatePassages gather_passages(const Tensor& kept, const Tensor& added, Communicator& sequence) {
  const Tensor all = all_gathered(torch::cat({kept.unsqueeze(-1), added.flatten(2)}, -1),
                                  sequence);  // [n, B, H, 1 + K V]
  return {all.select(-1, 0), all.slice(-1, 1).unflatten(-1, added.sizes().slice(2))};
}

Tensor StatePassages::before(int64_t rank) const {
  Tensor state = torch::zeros(added.sizes().slice(1), added.options());
  for (int64_t j = 0; j < rank; ++j)
    state = torch::addcmul(added[j], state, kept[j].unsqueeze(-1).unsqueeze(-1));
  return state;
}

Tensor gradient_of_left_state(const Tensor& kept, const Tensor& given, Communicator& sequence) {
  const Tensor all = all_gathered(given, sequence);  // [n, B, H, K, V]
  Tensor gradient = torch::zeros_like(given);
  for (int64_t j = sequence.size() - 1; j > sequence.rank(); --j)
    gradient = torch::addcmul(all[j], gradient, kept[j].unsqueeze(-1).unsqueeze(-1));
  return gradient;
}

Tensor segment_before(const Tensor& row_segment, int64_t begin) {
  if (!row_segment.defined()) return {};
  if (begin == 0) return torch::full({row_segment.size(0)}, -1, row_segment.options());
  const Tensor before = row_segment.narrow(1, 0, begin);
  const Tensor count = torch::arange(1, begin + 1, before.options().dtype(torch::kInt64));
  const Tensor newest = (before.ge(0) * count).amax(1, /*keepdim=*/true);  // [B, 1], 0 = none
  // Padding is any negative number.
  return before.gather(1, newest.sub(1).clamp_min(0)).masked_fill(newest.eq(0), -1).squeeze(1);
}

Tensor segment_up_to_here(const ForwardContext& context, int64_t n_columns) {
  if (!context.segment.defined()) return {};
  TORCH_CHECK(context.row_segment.defined(), "ranks divide the rows, but row_segment is undefined");
  const auto [rank, size] = part_of(context.sequence);
  const int64_t end = (rank + 1) * (context.row_segment.size(1) / size);
  return context.row_segment.narrow(1, end - n_columns, n_columns);
}

Tensor row_lengths_of(const ForwardContext& context, int64_t n_tokens) {
  if (context.row_lengths.defined()) return context.row_lengths;
  return torch::full({context.positions.size(0)}, part_of(context.sequence).size * n_tokens,
                     context.positions.options());
}

Tensor first_position(const ForwardContext& context) {
  const Tensor& positions = context.positions;
  return positions.narrow(1, 0, 1) - part_of(context.sequence).rank * positions.size(1);
}

Tensor own_columns(const Tensor& x, const Communicator& sequence, int64_t filler) {
  const auto [rank, size] = part_of(&sequence);
  const int64_t n = (x.size(1) + size - 1) / size;
  return torch::constant_pad_nd(x, {0, n * size - x.size(1)}, filler)
      .narrow(1, rank * n, n)
      .contiguous();
}

AttendMask mask_of(const KvCache& cache, const ForwardContext& context) {
  if (!is_divided(context)) return cache.mask(context.positions);
  return {.query_index = context.positions, .key_lengths = cache.key_lengths()};
}

void append_columns(KvCache& cache, const Tensor& k, const Tensor& v,
                    const ForwardContext& context) {
  const auto all = gather_columns(torch::cat({k, v}, 2), *context.sequence).chunk(2, 2);
  const Tensor columns = torch::arange(all[0].size(1), context.positions.options());
  cache.append(all[0], all[1], first_position(context) + columns, context.row_lengths);
}

std::vector<double> causal_shares(int64_t ranks, int64_t length) {
  const double n_tokens = static_cast<double>(length) / static_cast<double>(ranks);
  const double all = static_cast<double>(length) * (static_cast<double>(length) + 1) / 2;
  std::vector<double> shares;
  for (int64_t r = 0; r < ranks; ++r)
    shares.push_back(n_tokens * (static_cast<double>(r) * n_tokens + (n_tokens + 1) / 2) / all);
  return shares;
}

std::string imbalance_message(int64_t ranks, int64_t length) {
  const auto shares = causal_shares(ranks, length);
  return fmt::format(
      "the last of {} ranks computes {:.1f}% of the (query, key) pairs of causal attention, the "
      "first {:.1f}%; an even share is {:.1f}%",
      ranks, 100 * shares.back(), 100 * shares.front(), 100.0 / static_cast<double>(ranks));
}

std::string bytes_message(const SequenceBytes& bytes) {
  const auto text = [](double n) { return with_commas(static_cast<long long>(n)); };
  std::string parts;
  for (const auto& [name, sent] : bytes.parts)
    parts += fmt::format("{}{} {}", parts.empty() ? "" : ", ", name, text(sent));
  return fmt::format("each rank sends {} bytes a micro-batch to the others: {}",
                     text(bytes.total()), parts);
}

double key_value_gather_bytes(const SequencePass& pass, int64_t width, int64_t passes) {
  const auto elements = static_cast<double>(pass.tokens() * 2 * width * (pass.ranks - 1));
  return elements * static_cast<double>(passes * pass.element_size + pass.wide());
}

double columns_before_bytes(const SequencePass& pass, int64_t width, double column_bytes) {
  double there = 0;
  for (const int64_t n : widths_of_shifts(width, pass.length / pass.ranks, pass.ranks))
    there += column_bytes * static_cast<double>(n);
  const bool sends_up = pass.rank + 1 < pass.ranks, sends_back = pass.rank > 0;
  return there * static_cast<double>((sends_up ? pass.passes() : 0) + (sends_back ? 1 : 0));
}

}  // namespace tandem
