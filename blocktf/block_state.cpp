#include "blocktf/block_state.h"

#include "core/packing.h"
#include "nn/token_mixer.h"

namespace tandem {

std::unique_ptr<ModelState> BlockState::select(const Tensor& rows) const {
  auto selected = std::make_unique<BlockState>();
  selected->shape = shape;
  selected->shape.batch = rows.size(0);
  selected->blocks = blocks->select(rows);
  selected->context = context.index_select(0, rows);
  selected->tail = tail.index_select(0, rows);
  selected->tail_lengths = tail_lengths.index_select(0, rows);
  selected->phase = phase;
  if (local) selected->local = local->select(rows);
  selected->lengths = lengths.index_select(0, rows);
  if (next_logits.defined()) selected->next_logits = next_logits.index_select(0, rows);
  return selected;
}

std::vector<std::pair<std::string, Tensor>> BlockState::tensors() const {
  std::vector<std::pair<std::string, Tensor>> named;
  for (const auto& [name, tensor] : blocks->tensors())
    named.emplace_back("block_decoder." + name, tensor);
  named.emplace_back("context", context);
  named.emplace_back("tail", tail);
  if (local) {
    for (const auto& [name, tensor] : local->tensors())
      named.emplace_back("token_decoder." + name, tensor);
  }
  return named;
}

void BlockState::update_lengths(int64_t block_length) {
  lengths = blocks->lengths * block_length + tail_lengths;
}

void check_padding(const BlockState& state, const Tensor& tokens, int64_t block_length) {
  if (!tokens.is_cpu()) return;
  const auto padding = tokens.eq(kPadding);
  if (!padding.any().item<bool>()) return;
  const auto slot = torch::arange(block_length, tokens.options()).unsqueeze(0);
  const auto held = (slot < state.tail_lengths.unsqueeze(1)) & state.tail.ge(0);
  const auto begun = (state.blocks->lengths > 0) | held.any(1);  // [B]
  const auto n = padding.sum(1);
  const auto in_front = padding.to(torch::kInt64).cumprod(1).sum(1).eq(n);
  const auto good = n.eq(0) | (in_front & ~begun & (n + state.tail_lengths < block_length));
  TORCH_CHECK(good.all().item<bool>(),
              "extend: padding behind a token or a block of it, expected less than ", block_length,
              " in front of a row's first token");
}

Regrouped regroup(const BlockState& state, const Tensor& tokens, const Tensor& lengths,
                  int64_t block_length) {
  const int64_t n_tokens = tokens.size(1);
  const bool full = rows_are_full(lengths, n_tokens);
  // Columns that the tails may take: all but one of a block where the host does not know.
  const int64_t most_before = state.phase.value_or(block_length - 1);
  Regrouped made;
  made.same_begin = state.phase;
  made.begin = state.tail_lengths;
  const auto valid = made.begin + (full ? torch::full_like(made.begin, n_tokens) : lengths);  // [B]
  made.n_full = valid.div(block_length, "floor");
  made.n_blocks = !state.phase && valid.is_cpu() ? made.n_full.max().item<int64_t>()
                                                 : (most_before + n_tokens) / block_length;
  made.tail_lengths = valid - made.n_full * block_length;
  made.all_full = full && state.phase;

  const int64_t width = (made.n_blocks + 1) * block_length;
  if (state.phase) {
    const auto joined = torch::cat({state.tail.narrow(1, 0, *state.phase), tokens}, 1);
    made.tokens = torch::constant_pad_nd(joined, {0, width - joined.size(1)});
  } else {
    const auto column = torch::arange(width, tokens.options()).unsqueeze(0);  // [1, width]
    const auto from = column - made.begin.unsqueeze(1);                       // [B, width]
    const auto of_tail = torch::constant_pad_nd(state.tail, {0, width - block_length});
    const auto of_call = tokens.gather(1, from.clamp(0, n_tokens - 1));
    made.tokens = torch::where(from < 0, of_tail, of_call.masked_fill(from >= n_tokens, 0));
  }
  if (made.all_full) {
    made.phase = (*state.phase + n_tokens) % block_length;
  } else if (made.tail_lengths.is_cpu()) {  // elsewhere asking would wait for the device
    const auto [least, most] = at::aminmax(made.tail_lengths);
    if (torch::equal(least, most)) made.phase = least.item<int64_t>();
  }
  return made;
}

}  // namespace tandem
