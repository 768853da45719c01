#include "nn/stack_language_model.h"

#include <cmath>
#include <limits>

#include "nn/cross_entropy.h"
#include "nn/extend_arguments.h"
#include "nn/sequence_parallel.h"

namespace tandem {
namespace {

struct StackModelState final : ModelState {
  std::unique_ptr<StackState> stack;
  StateShape shape;

  std::unique_ptr<ModelState> select(const Tensor& rows) const override {
    auto selected = std::make_unique<StackModelState>();
    selected->stack = stack->select(rows);
    selected->shape = shape;
    selected->shape.batch = rows.size(0);
    selected->lengths = selected->stack->lengths;
    if (next_logits.defined()) selected->next_logits = next_logits.index_select(0, rows);
    return selected;
  }
  std::vector<std::pair<std::string, Tensor>> tensors() const override { return stack->tensors(); }
};

StackModelState& as_stack_state(ModelState& state) {
  auto* own = dynamic_cast<StackModelState*>(&state);
  TORCH_CHECK(own != nullptr, "the state was made by a model of another kind");
  return *own;
}

// What a stack needs to continue the rows of `state` by calls of [B, T] tokens. Where ranks divide
// them it is about this rank's columns; too few to divide, as in decoding, are every rank's.
ForwardContext continue_rows(const Tensor& tokens, const Tensor& lengths,
                             const StackModelState& state) {
  ForwardContext context;
  context.runner = state.shape.runner;
  context.lengths = lengths;
  context.positions = positions_after(state.stack->lengths, tokens.size(1));
  const auto [rank, size] = part_of(state.shape.sequence);
  if (size == 1 || tokens.size(1) < size) return context;

  context.sequence = state.shape.sequence;
  const int64_t n_tokens = (tokens.size(1) + size - 1) / size;
  if (lengths.defined() || n_tokens * size > tokens.size(1)) {
    const Tensor& held = state.stack->lengths;
    context.row_lengths = lengths.defined() ? lengths : torch::full_like(held, tokens.size(1));
    context.lengths = (context.row_lengths - rank * n_tokens).clamp(0, n_tokens);
  }
  context.positions = positions_after(state.stack->lengths + rank * n_tokens, n_tokens);
  return context;
}

// What this rank computes of x [B, T], as the context says.
Tensor own_part(const Tensor& x, const ForwardContext& context, int64_t filler) {
  return is_divided(context) ? own_columns(x, *context.sequence, filler) : x;
}

// [B, T, ...] again out of what each rank computed of it.
Tensor whole(const Tensor& x, const ForwardContext& context, int64_t n_tokens) {
  if (!is_divided(context)) return x;
  return gather_columns(x, *context.sequence).narrow(1, 0, n_tokens);
}

}  // namespace

int64_t given_vocab_size(const std::optional<int64_t>& vocab_size) {
  TORCH_CHECK(vocab_size,
              "vocab_size is absent: it is set from the tokenizer before a model is built");
  return *vocab_size;
}

StackLanguageModel::StackLanguageModel(std::shared_ptr<DecoderStack> stack, const TokenEnds& ends)
    : stack_(std::move(stack)), ends_(ends) {
  TORCH_CHECK(stack_->named_parameters(/*recurse=*/false).is_empty(),
              "a stack keeps its parameters in its children, which the model takes over");
  const int64_t d_model = stack_->d_model();
  embedding_ =
      register_module("embedding", Embedding(ends_.vocab_size, d_model, ends_.embedding_init,
                                             /*frozen=*/-1, Split::kRows));
  if (ends_.max_positions > 0) {
    position_embedding_ = register_module(
        "position_embedding", Embedding(ends_.max_positions, d_model, ends_.embedding_init));
  }
  for (const auto& child : stack_->named_children()) register_module(child.key(), child.value());
  if (!ends_.tie_embeddings) {
    head_ =
        register_module("head", Linear(d_model, ends_.vocab_size, ends_.head_init, Split::kRows));
  }
}

const Tensor& StackLanguageModel::head_weight() const {
  return ends_.tie_embeddings ? embedding_->weight() : head_->weight();
}

HeldRows StackLanguageModel::head_part() const {
  return ends_.tie_embeddings ? embedding_->part() : head_->part();
}

Tensor StackLanguageModel::embed(const Tensor& tokens, const ForwardContext& context) const {
  check_ids(tokens, /*least=*/0, ends_.vocab_size);
  auto x = embedding_->forward(tokens);  // [B, T, D]
  if (ends_.embedding_scale) x = x * std::sqrt(static_cast<double>(x.size(-1)));
  return position_embedding_ ? x + learned_positions(context) : x;
}

Tensor StackLanguageModel::learned_positions(const ForwardContext& context) const {
  auto positions = context.positions;
  if (context.lengths.defined()) {  // what fills a row up may lie past the table
    const auto columns = torch::arange(positions.size(1), positions.options());
    positions = positions.masked_fill(columns >= context.lengths.unsqueeze(1), 0);
  }
  if (positions.is_cpu()) {  // on a GPU the lookup itself fails
    const auto last = positions.max().item<int64_t>();
    TORCH_CHECK(last < ends_.max_positions, "position ", last, " is past the model's ",
                ends_.max_positions, " learned positions");
  }
  return position_embedding_->forward(positions);
}

Loss StackLanguageModel::loss(const Batch& batch, const ForwardContext& context) {
  TORCH_CHECK(!is_divided(context) || batch.positions.defined(),
              "loss: ranks divide the rows, expected a batch made for a part of them");
  ForwardContext own = context;
  own.positions = positions_of(batch);
  own.segment = batch.segment;
  own.row_segment = batch.row_segment;
  own.samples = batch.samples;
  own.wanted = batch.scored;
  const bool some = batch.scored.defined();
  const auto of_wanted = [&](const Tensor& x) {
    return some && x.defined() ? at_columns(x, batch.scored) : x;
  };
  const auto h = stack_->forward(embed(batch.tokens, own), own, /*state=*/nullptr,
                                 some ? Want::kSome : Want::kAll);  // [B, N or T, D]
  auto loss = cross_entropy(h, head_weight(), of_wanted(batch.targets), of_wanted(batch.weights),
                            kLossChunk, head_part());
  if (some) {
    const auto nan = std::numeric_limits<double>::quiet_NaN();
    loss.nll = torch::full(batch.targets.sizes(), nan, loss.nll.options())
                   .scatter_(1, batch.scored, loss.nll);  // [B, T]
  }
  return loss;
}

std::unique_ptr<ModelState> StackLanguageModel::make_state(const StateShape& shape) const {
  auto state = std::make_unique<StackModelState>();
  state->stack = stack_->make_state(shape);
  state->shape = shape;
  state->lengths = state->stack->lengths;
  return state;
}

Tensor StackLanguageModel::extend(const Tensor& tokens, const Tensor& lengths, ModelState& state,
                                  Want want) {
  const torch::NoGradGuard no_grad;
  auto& own = as_stack_state(state);
  check_extend_arguments(tokens, lengths, own.shape.batch,
                         /*shortest=*/want == Want::kLast ? 1 : 0);
  const auto context = continue_rows(tokens, lengths, own);
  const auto own_tokens = own_part(tokens, context, /*filler=*/0);
  auto h = stack_->forward(embed(own_tokens, context), context, own.stack.get(), want);
  own.lengths = own.stack->lengths;
  if (want == Want::kNothing) return {};
  if (want == Want::kAll) h = whole(h, context, tokens.size(1));
  const auto logits = gather_logits(at::linear(h, head_weight()), head_part())
                          .to(float_or_wider(h.scalar_type()));  // [B, T or 1, V]
  if (want == Want::kAll) return logits;
  own.next_logits = logits.squeeze(1);
  return own.next_logits;
}

Tensor StackLanguageModel::extend_nll(const Tensor& tokens, const Tensor& targets,
                                      const Tensor& lengths, ModelState& state) {
  const torch::NoGradGuard no_grad;
  auto& own = as_stack_state(state);
  check_extend_arguments(tokens, lengths, own.shape.batch, /*shortest=*/0);
  const bool scored =
      (targets != kIgnored).any().item<bool>();  // if not, the early exit serves scoring too
  const auto context = continue_rows(tokens, lengths, own);
  const auto x = embed(own_part(tokens, context, /*filler=*/0), context);
  const auto h = stack_->forward(x, context, own.stack.get(), scored ? Want::kAll : Want::kNothing);
  own.lengths = own.stack->lengths;
  if (scored) {
    const auto nll = token_nll(h, head_weight(), own_part(targets, context, kIgnored), kLossChunk,
                               head_part());
    return whole(nll, context, targets.size(1));
  }
  return torch::full(targets.sizes(), std::numeric_limits<double>::quiet_NaN(),
                     x.options().dtype(float_or_wider(x.scalar_type())));
}

Flops StackLanguageModel::flops(Phase phase, int64_t length, int64_t batch) const {
  auto flops = stack_->forward_flops(phase, length, batch);
  const int64_t n_logits = phase == Phase::kTrain ? length * batch : batch;
  flops.parts.emplace_back("head", 2.0 * static_cast<double>(stack_->d_model()) *
                                       static_cast<double>(ends_.vocab_size) *
                                       static_cast<double>(n_logits));
  if (phase == Phase::kTrain) {
    for (auto& [name, value] : flops.parts)
      value *= 3;  // backward forms two products for each of forward's
  }
  return flops;
}

StateBytes StackLanguageModel::state_bytes(int64_t length, torch::Dtype dtype) const {
  return stack_->state_bytes(length, dtype);
}

}  // namespace tandem
