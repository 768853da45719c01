#include "blocktf/block_transformer.h"

#include <limits>

#include "blocktf/block_state.h"
#include "nn/cross_entropy.h"
#include "nn/device_sampler.h"
#include "nn/extend_arguments.h"
#include "nn/sequence_parallel.h"
#include "nn/stack_language_model.h"
#include "nn/token_mixer.h"

namespace tandem {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

BlockState& as_block_state(ModelState& state) {
  auto* own = dynamic_cast<BlockState*>(&state);
  TORCH_CHECK(own != nullptr, "the state was made by a model of another kind");
  return *own;
}

void check_whole(const Communicator* sequence) {
  TORCH_CHECK(part_of(sequence).size == 1, "a Block Transformer's rows are not divided over ranks");
}

// The blocks of a batch whose tokens are decoded: [B, M] numbers counted from 0, of which block n +
// 1 is decoded from the context of block n. Undefined: all.
Tensor scored_blocks(const Batch& batch, int64_t block_length, int64_t n_blocks) {
  if (!batch.scored.defined()) return {};
  const auto block = batch.scored.add(1).div(block_length, "floor").sub(1);  // -1: the first block
  const auto any = torch::zeros({block.size(0), n_blocks + 1}, block.options().dtype(torch::kBool))
                       .scatter_(1, block.add(1), true)
                       .narrow(1, 1, n_blocks);  // [B, N]
  // On a GPU as many as there may be: how many there are it would have to be waited for.
  int64_t most = std::min(n_blocks, block.size(1));
  if (any.is_cpu()) most = std::max<int64_t>(1, any.sum(1).max().item<int64_t>());
  // Scored ones first, in their order; rows with fewer are filled up with unscored ones.
  const auto first = any.to(torch::kInt8).argsort(/*stable=*/true, /*dim=*/1, /*descending=*/true);
  return std::get<0>(first.narrow(1, 0, most).sort(1));
}

/// Embedder, block decoder, token decoder (Block Transformer, sec. 2.1).
class BlockTransformer final : public LanguageModel {
 public:
  BlockTransformer(const BlockTransformerConfig& config, const StackFactory& stacks)
      : block_length_(config.block_length),
        vocab_size_(given_vocab_size(config.vocab_size)),
        pad_documents_(config.pad_documents) {
    block_decoder_ = stacks.build(config.block_decoder);
    const int64_t d_model = block_decoder_->d_model();
    embedder_ = register_module(
        "embedder", make_embedder(config.embedder, {vocab_size_, block_length_, d_model}));
    register_module("block_decoder", block_decoder_);
    const TokenDecoderSpec spec{vocab_size_, block_length_, d_model,
                                config.generation_positions == "official"};
    token_decoder_ =
        register_module("token_decoder", make_token_decoder(config.token_decoder, spec, stacks));
  }

  Loss loss(const Batch& batch, const ForwardContext& context) override;
  std::unique_ptr<ModelState> make_state(const StateShape& shape) const override;
  Tensor extend(const Tensor& tokens, const Tensor& lengths, ModelState& state, Want want) override;
  Tensor extend_nll(const Tensor& tokens, const Tensor& targets, const Tensor& lengths,
                    ModelState& state) override;
  int64_t tokens_per_call() const override { return block_length_; }
  Tensor generate_block(ModelState& state, DeviceSampler& sampler) override;
  Packing packing() const override {
    return {.multiple = block_length_,
            .unscored_prefix = block_length_ - 1,
            .pad_documents = pad_documents_};
  }
  int64_t vocab_size() const override { return vocab_size_; }
  int64_t n_layers() const override {
    return block_decoder_->n_layers() + token_decoder_->n_layers();
  }
  Flops flops(Phase phase, int64_t length, int64_t batch) const override;
  StateBytes state_bytes(int64_t length, torch::Dtype dtype) const override;

 private:
  /// Hidden states of a call's columns, and which of them have a context.
  struct Hidden {
    Tensor values, known;  // [B, T, D], [B, T] bool
  };
  Tensor logits_of(const Tensor& hidden) const;
  /// Takes a call's tokens into the state. Of every column where `every`, else of none.
  Hidden advance(const Tensor& tokens, const Tensor& lengths, BlockState& state, bool every) const;
  void begin_block(BlockState& state) const;
  Tensor known_logits(const Tensor& hidden, const BlockState& state) const;
  void check_call(const Tensor& tokens, const Tensor& lengths, const BlockState& state,
                  int64_t shortest) const;
  torch::Dtype dtype() const { return token_decoder_->head_weight().scalar_type(); }

  int64_t block_length_, vocab_size_;
  bool pad_documents_;
  std::shared_ptr<Embedder> embedder_;
  std::shared_ptr<DecoderStack> block_decoder_;
  std::shared_ptr<TokenDecoder> token_decoder_;
};

Tensor BlockTransformer::logits_of(const Tensor& hidden) const {
  const auto logits = at::linear(hidden, token_decoder_->head_weight());
  return gather_logits(logits, token_decoder_->head_part())
      .to(float_or_wider(hidden.scalar_type()));
}

Loss BlockTransformer::loss(const Batch& batch, const ForwardContext& context) {
  check_whole(context.sequence);
  const int64_t rows = batch.tokens.size(0), n_tokens = batch.tokens.size(1),
                n_blocks = n_tokens / block_length_;
  TORCH_CHECK(n_blocks >= 1, "loss: rows of ", n_tokens, " tokens, expected at least a block of ",
              block_length_);
  check_ids(batch.tokens, /*least=*/0, vocab_size_);
  TORCH_CHECK(!batch.targets.is_cpu() ||
                  batch.targets.narrow(1, 0, block_length_ - 1).eq(kIgnored).all().item<bool>(),
              "loss: the first ", block_length_ - 1,
              " targets of a row have no probability, expected rows that packing() was applied to");
  // Blocks 0 .. N - 1 are embedded, blocks 1 .. N decoded, of which the last is not whole.
  const int64_t width = (n_blocks + 1) * block_length_;
  const auto in_blocks = [&](const Tensor& x) {
    return torch::constant_pad_nd(x, {0, width - n_tokens}).unflatten(1, {-1, block_length_});
  };
  const auto tokens = in_blocks(batch.tokens);  // [B, N + 1, L]
  Tensor real;
  ForwardContext of_blocks = context;
  of_blocks.samples = batch.samples;
  of_blocks.positions = torch::arange(n_blocks, tokens.options()).expand({rows, n_blocks});
  of_blocks.segment = Tensor();
  if (batch.segment.defined()) {
    real = in_blocks(batch.segment.ge(0));
    of_blocks.segment = batch.segment.narrow(1, 0, n_blocks * block_length_)
                            .unflatten(1, {-1, block_length_})
                            .amax(2);  // [B, N], -1 where all of a block is padding
  }
  of_blocks.wanted = scored_blocks(batch, block_length_, n_blocks);
  const bool some = of_blocks.wanted.defined();
  const auto upto = [&](const Tensor& x) { return x.defined() ? x.narrow(1, 0, n_blocks) : x; };
  const auto contexts =
      block_decoder_->forward(embedder_->forward(upto(tokens), upto(real), of_blocks), of_blocks,
                              /*state=*/nullptr, some ? Want::kSome : Want::kAll);  // [B, M, H]

  // [B, N, ...] of the decoded blocks -> [B, M, ...] of those that are scored.
  const auto of_scored = [&](const Tensor& x) {
    return some && x.defined() ? at_columns(x, of_blocks.wanted) : x;
  };
  const auto decoded = [&](const Tensor& x) {  // [B, N + 1, L] -> [B * M, L - 1], what is fed
    if (!x.defined()) return x;
    return of_scored(x.narrow(1, 1, n_blocks).narrow(2, 0, block_length_ - 1)).flatten(0, 1);
  };
  const auto h = token_decoder_->forward(contexts.flatten(0, 1), decoded(tokens), decoded(real),
                                         of_blocks);  // [B * M, L, D]
  // Column t scores token t + 1, so that block n's targets begin in the column before it.
  const auto of_targets = [&](const Tensor& x, double fill) {  // [B, T] -> [B, M * L]
    if (!x.defined()) return x;
    const auto behind = x.narrow(1, block_length_ - 1, n_tokens - block_length_ + 1);
    const auto all =
        torch::constant_pad_nd(behind, {0, n_blocks * block_length_ - behind.size(1)}, fill);
    return of_scored(all.unflatten(1, {n_blocks, block_length_})).flatten(1);
  };
  auto loss = cross_entropy(h.unflatten(0, {rows, -1}).flatten(1, 2), token_decoder_->head_weight(),
                            of_targets(batch.targets, kIgnored), of_targets(batch.weights, 0),
                            kLossChunk, token_decoder_->head_part());
  auto nll = loss.nll.unflatten(1, {-1, block_length_});  // [B, M, L]
  if (some) {
    const auto index = of_blocks.wanted.unsqueeze(2).expand_as(nll);
    nll = torch::full({rows, n_blocks, block_length_}, kNan, nll.options()).scatter_(1, index, nll);
  }
  const auto first = torch::full({rows, block_length_ - 1}, kNan, nll.options());
  loss.nll = torch::cat({first, nll.flatten(1)}, 1).narrow(1, 0, n_tokens);
  return loss;
}

std::unique_ptr<ModelState> BlockTransformer::make_state(const StateShape& shape) const {
  check_whole(shape.sequence);
  auto state = std::make_unique<BlockState>();
  StateShape of_blocks = shape;
  of_blocks.capacity = (shape.capacity + block_length_ - 1) / block_length_;
  state->shape = shape;
  state->blocks = block_decoder_->make_state(of_blocks);
  const auto options = torch::TensorOptions().device(shape.device);
  state->context = torch::zeros({shape.batch, block_decoder_->d_model()},
                                options.dtype(float_or_wider(dtype())));
  state->tail = torch::zeros({shape.batch, block_length_}, options.dtype(torch::kInt64));
  state->tail_lengths = torch::zeros({shape.batch}, options.dtype(torch::kInt64));
  state->phase = 0;
  state->update_lengths(block_length_);
  return state;
}

void BlockTransformer::check_call(const Tensor& tokens, const Tensor& lengths,
                                  const BlockState& state, int64_t shortest) const {
  check_extend_arguments(tokens, lengths, state.shape.batch, shortest);
  check_ids(tokens, kPadding, vocab_size_);
  check_padding(state, tokens, block_length_);
}

BlockTransformer::Hidden BlockTransformer::advance(const Tensor& tokens, const Tensor& lengths,
                                                   BlockState& state, bool every) const {
  const Regrouped rows = regroup(state, tokens, lengths, block_length_);
  const int64_t batch = tokens.size(0), n_tokens = tokens.size(1);
  const auto in_blocks = rows.tokens.unflatten(1, {-1, block_length_});  // [B, M + 1, L]
  const auto had_context = state.blocks->lengths > 0;                    // [B]
  const auto before = state.context.to(dtype());
  auto contexts = before.unsqueeze(1);  // [B, 1 (+ M), H], of the block that each row is in
  ForwardContext context;
  context.sequence = state.shape.sequence;
  context.runner = state.shape.runner;
  if (rows.n_blocks > 0) {
    const auto whole = in_blocks.narrow(1, 0, rows.n_blocks);
    context.positions = positions_after(state.blocks->lengths, rows.n_blocks);
    if (!rows.all_full) context.lengths = rows.n_full;
    const auto out = block_decoder_->forward(
        embedder_->forward(whole.clamp_min(0), whole.ge(0), context), context, state.blocks.get(),
        every ? Want::kAll : Want::kLast);  // [B, M or 1, H]
    contexts = torch::cat({contexts, out}, 1);
    const auto last = every ? rows.n_full : rows.n_full.clamp_max(1);  // the newest of each row
    state.context = at_columns(contexts, last.unsqueeze(1)).squeeze(1).to(state.context.dtype());
  }
  const auto slot = torch::arange(block_length_, rows.tokens.options()).unsqueeze(0);  // [1, L]
  const auto behind = rows.tokens.gather(1, rows.n_full.unsqueeze(1) * block_length_ + slot);
  state.tail = behind.masked_fill(slot >= rows.tail_lengths.unsqueeze(1), 0);
  state.tail_lengths = rows.tail_lengths;
  state.phase = rows.phase;
  state.local.reset();
  state.next_logits = Tensor();
  state.update_lengths(block_length_);
  if (!every) return {};

  // Entry i of the blocks laid end to end predicts their token i.
  const auto fed = in_blocks.narrow(2, 0, block_length_ - 1).clamp_min(0).flatten(0, 1);
  const auto entries = token_decoder_->forward(contexts.flatten(0, 1), fed, /*real=*/{}, context)
                           .unflatten(0, {batch, -1})
                           .flatten(1, 2);  // [B, (M + 1) * L, D]
  const auto predicted = (rows.begin.unsqueeze(1) + 1 + torch::arange(n_tokens, tokens.options()))
                             .clamp_max(entries.size(1) - 1);  // past a row's length
  Hidden hidden;
  hidden.values = rows.same_begin ? entries.narrow(1, *rows.same_begin + 1, n_tokens)
                                  : at_columns(entries, predicted);
  hidden.known = predicted.ge(block_length_).logical_or(had_context.unsqueeze(1));
  return hidden;
}

/// The logits that follow each row, and where all rows are as far in their blocks the token
/// decoder's state to go on from.
void BlockTransformer::begin_block(BlockState& state) const {
  const auto context = state.context.to(dtype());
  const auto tail = state.tail.clamp_min(0);
  Tensor hidden;
  if (state.phase) {
    std::tie(hidden, state.local) =
        token_decoder_->begin(context, tail.narrow(1, 0, *state.phase), state.shape);
  } else {
    auto [next, local] = token_decoder_->begin(context, tail.narrow(1, 0, 0), state.shape);
    hidden = next;
    for (int64_t j = 0; j + 1 < block_length_; ++j) {
      next = token_decoder_->step(tail.select(1, j), *local);
      hidden = torch::where((state.tail_lengths > j).unsqueeze(1), next, hidden);
    }
  }
  state.next_logits = known_logits(hidden, state);
}

// NaN in rows without a context.
Tensor BlockTransformer::known_logits(const Tensor& hidden, const BlockState& state) const {
  const auto known = (state.blocks->lengths > 0).unsqueeze(1);
  return logits_of(hidden).masked_fill(known.logical_not(), kNan);
}

Tensor BlockTransformer::extend(const Tensor& tokens, const Tensor& lengths, ModelState& state,
                                Want want) {
  const torch::NoGradGuard no_grad;
  auto& own = as_block_state(state);
  check_call(tokens, lengths, own, /*shortest=*/want == Want::kLast ? 1 : 0);
  auto local = std::move(own.local);
  const bool goes_on = want == Want::kLast && local && tokens.size(1) == 1 && own.phase &&
                       *own.phase + 1 < block_length_ && rows_are_full(lengths, 1);
  const auto hidden = advance(tokens, lengths, own, want == Want::kAll);
  if (want == Want::kNothing) return {};
  if (goes_on) {  // one more token of a block that all rows are in
    const auto next = token_decoder_->step(tokens.select(1, 0).clamp_min(0), *local);
    own.local = std::move(local);
    own.next_logits = known_logits(next, own);
    return own.next_logits;
  }
  if (want == Want::kAll) {
    return logits_of(hidden.values).masked_fill(hidden.known.logical_not().unsqueeze(2), kNan);
  }
  begin_block(own);
  return own.next_logits;
}

Tensor BlockTransformer::extend_nll(const Tensor& tokens, const Tensor& targets,
                                    const Tensor& lengths, ModelState& state) {
  const torch::NoGradGuard no_grad;
  auto& own = as_block_state(state);
  check_call(tokens, lengths, own, /*shortest=*/0);
  const bool scored = (targets != kIgnored).any().item<bool>();
  const auto hidden = advance(tokens, lengths, own, scored);
  if (scored) {
    return token_nll(hidden.values, token_decoder_->head_weight(),
                     targets.masked_fill(hidden.known.logical_not(), kIgnored), kLossChunk,
                     token_decoder_->head_part());
  }
  return torch::full(targets.sizes(), kNan, own.context.options().dtype(float_or_wider(dtype())));
}

Tensor BlockTransformer::generate_block(ModelState& state, DeviceSampler& sampler) {
  const torch::NoGradGuard no_grad;
  auto& own = as_block_state(state);
  TORCH_CHECK(own.next_logits.defined(),
              "generate_block: the state has no logits to begin with, expected extend with "
              "Want::kLast before it");
  TORCH_CHECK(!own.lengths.is_cpu() || own.blocks->lengths.min().item<int64_t>() > 0,
              "generate_block: a row holds no whole block yet, expected a prompt of at least ",
              block_length_, " tokens, padding included");
  // Slot by slot in all rows together. Where rows have begun their blocks at different lengths,
  // what they hold is fed again from the block's start, and only what is behind it is drawn.
  const int64_t first = own.phase.value_or(0);
  Tensor logits = own.next_logits;
  if (!own.local) {
    auto [hidden, local] = token_decoder_->begin(
        own.context.to(dtype()), own.tail.narrow(1, 0, first).clamp_min(0), own.shape);
    logits = logits_of(hidden);
    own.local = std::move(local);
  }
  sampler.skip(first);  // a row's draws do not depend on the others' tails
  Tensors drawn, block = own.tail.narrow(1, 0, first).unbind(1);
  for (int64_t j = 0; j < first; ++j) drawn.push_back(torch::full_like(own.tail_lengths, kPadding));
  for (int64_t j = first; j < block_length_; ++j) {
    auto token = sampler.sample(logits);  // [B]
    drawn.push_back(token);
    if (!own.phase) {
      const auto held = own.tail_lengths > j;
      drawn.back() = token.masked_fill(held, kPadding);
      token = torch::where(held, own.tail.select(1, j), token);
    }
    block.push_back(token);
    if (j + 1 < block_length_)
      logits = logits_of(token_decoder_->step(token.clamp_min(0), *own.local));
  }
  ForwardContext context;
  context.sequence = own.shape.sequence;
  context.runner = own.shape.runner;
  context.positions = positions_after(own.blocks->lengths, 1);
  const auto whole = torch::stack(block, 1).unsqueeze(1);  // [B, 1, L]
  const auto out =
      block_decoder_->forward(embedder_->forward(whole.clamp_min(0), whole.ge(0), context), context,
                              own.blocks.get(), Want::kLast);  // [B, 1, H]
  own.context = out.squeeze(1).to(own.context.dtype());
  own.tail = torch::zeros_like(own.tail);
  own.tail_lengths = torch::zeros_like(own.tail_lengths);
  own.phase = 0;
  own.update_lengths(block_length_);
  begin_block(own);
  return torch::stack(drawn, 1);
}

Flops BlockTransformer::flops(Phase phase, int64_t length, int64_t batch) const {
  const double rows = static_cast<double>(batch), block = static_cast<double>(block_length_);
  const int64_t n_blocks = length / block_length_;
  const double head =
      2.0 * static_cast<double>(vocab_size_ * token_decoder_->head_weight().size(1));  // a token
  const auto parts = [](double embedder, double blocks, double tokens, double logits) {
    return Flops{{{"embedder", embedder},
                  {"block_decoder", blocks},
                  {"token_decoder", tokens},
                  {"head", logits}}};
  };
  if (phase == Phase::kDecode) {  // a block_length-th of a block
    return parts(embedder_->forward_flops(rows) / block,
                 block_decoder_->forward_flops(phase, n_blocks, batch).total() / block,
                 rows * token_decoder_->forward_flops(block_length_) / block, rows * head);
  }
  const double embedder = embedder_->forward_flops(rows * static_cast<double>(n_blocks));
  const double blocks =
      n_blocks > 0 ? block_decoder_->forward_flops(phase, n_blocks, batch).total() : 0;
  if (phase == Phase::kPrefill) {
    return parts(embedder, blocks, rows * token_decoder_->forward_flops(length % block_length_ + 1),
                 rows * head);
  }
  const double decoded = rows * static_cast<double>(n_blocks);
  Flops flops = parts(embedder, blocks, decoded * token_decoder_->forward_flops(block_length_),
                      decoded * block * head);
  for (auto& [name, value] : flops.parts)
    value *= 3;  // backward forms two products for each of forward's
  return flops;
}

StateBytes BlockTransformer::state_bytes(int64_t length, torch::Dtype dtype) const {
  const int64_t tail = length % block_length_;
  return {
      {{"block_decoder", block_decoder_->state_bytes(length / block_length_, dtype).total()},
       {"context", block_decoder_->d_model() * static_cast<int64_t>(torch::elementSize(float_or_wider(dtype)))},
       {"tail", block_length_ * static_cast<int64_t>(sizeof(int64_t))},
       {"token_decoder", token_decoder_->state_bytes(tail, dtype)}}};
}

}  // namespace

std::shared_ptr<LanguageModel> make_block_transformer(const BlockTransformerConfig& config,
                                                      const StackFactory& stacks) {
  return std::make_shared<BlockTransformer>(config, stacks);
}

}  // namespace tandem
