#include "blocktf/stack_token_decoder.h"

#include "blocktf/token_decoder_parts.h"
#include "nn/gpt_neox.h"

// Inputs of a block of L tokens A B C ..., whose context was expanded to z_1 .. z_r:
//   prefix      z_1 .. z_r, emb(A), emb(B), ...                   A is predicted from z_r
//   summation   emb(BOS) + z_1, emb(A) + z_2, emb(B) + z_3, ...   A is predicted from the first
// Both are F inputs in front and one for each token, to which summation adds a vector; the last of
// those in front predicts the first token.

namespace tandem {
namespace {

/// Keys and values of the inputs so far.
struct CachedState final : LocalState {
  std::unique_ptr<StackState> stack;
  Tensor added;  // [B, L - 1, D], as StackTokenDecoder::Expanded has it
  int64_t n_tokens = 0;
  LayerRunner* runner = nullptr;

  std::unique_ptr<LocalState> select(const Tensor& rows) const override {
    auto selected = std::make_unique<CachedState>();
    selected->stack = stack->select(rows);
    if (added.defined()) selected->added = added.index_select(0, rows);
    selected->n_tokens = n_tokens;
    selected->runner = runner;
    return selected;
  }
  std::vector<std::pair<std::string, Tensor>> tensors() const override {
    auto named = stack->tensors();
    if (added.defined()) named.emplace_back("context", added);
    return named;
  }
};

class StackTokenDecoder : public TokenDecoder {
 public:
  /// n_vectors: r; n_front: F.
  StackTokenDecoder(const TokenDecoderSpec& spec, std::shared_ptr<DecoderStack> stack,
                    int64_t n_vectors, int64_t n_front)
      : spec_(spec), n_vectors_(n_vectors), n_front_(n_front), stack_(std::move(stack)) {
    TORCH_CHECK(stack_->named_parameters(/*recurse=*/false).is_empty(),
                "a stack keeps its parameters in its children, which the token decoder takes over");
    const int64_t d_model = stack_->d_model();
    embedding_ =
        register_module("embedding", Embedding(spec.vocab_size, d_model, init_normal(kNeoxStd),
                                               /*frozen=*/-1, Split::kRows));
    expansion_ = register_module("expansion", make_expansion(spec, n_vectors, d_model));
    for (const auto& child : stack_->named_children()) register_module(child.key(), child.value());
    head_ = register_module("head",
                            Linear(d_model, spec.vocab_size, init_normal(kNeoxStd), Split::kRows));
  }

  Tensor forward(const Tensor& context, const Tensor& tokens, const Tensor& real,
                 const ForwardContext& base) override {
    check_blocks(spec_, context, tokens, real);
    const auto [front, added] = inputs_of(expanded(context));
    const auto x = torch::cat({front, embedded(tokens, added, 0)}, 1);  // [M, F + L - 1, D]
    ForwardContext own;
    own.random = base.random;
    own.runner = base.runner;
    own.training = base.training;
    own.positions = torch::arange(x.size(1), tokens.options()).expand({x.size(0), -1});
    if (real.defined()) {
      own.key_segment = torch::constant_pad_nd(real.to(torch::kInt32) - 1, {n_front_, 0});
      own.segment = torch::zeros_like(own.key_segment);  // padding sees, but is not seen
    }
    const auto h = stack_->forward(x, own, /*state=*/nullptr, Want::kAll);
    return h.narrow(1, n_front_ - 1, spec_.block_length);  // [M, L, D]
  }

  std::pair<Tensor, std::unique_ptr<LocalState>> begin(const Tensor& context, const Tensor& tokens,
                                                       const StateShape& shape) override {
    const torch::NoGradGuard no_grad;
    check_begin(spec_, context, tokens);
    const auto [front, added] = inputs_of(expanded(context));
    StateShape own = shape;
    own.batch = context.size(0);
    own.capacity = n_front_ + spec_.block_length - 1;
    own.sequence = nullptr;  // a block is never split
    auto state = std::make_unique<CachedState>();
    state->stack = stack_->make_state(own);
    if (added.defined()) state->added = added.to(float_or_wider(added.scalar_type()));
    state->n_tokens = tokens.size(1);
    state->runner = shape.runner;
    const auto x = torch::cat({front, embedded(tokens, state->added, 0)}, 1);  // [B, F + n, D]
    const Tensor h = extend(x, *state);
    return {h, std::move(state)};
  }

  Tensor step(const Tensor& token, LocalState& state) override {
    const torch::NoGradGuard no_grad;
    auto& own = dynamic_cast<CachedState&>(state);
    check_step(spec_, own.n_tokens);
    return extend(embedded(token.unsqueeze(1), own.added, own.n_tokens++), own);
  }

  const Tensor& head_weight() const override { return head_->weight(); }
  HeldRows head_part() const override { return head_->part(); }
  int64_t n_layers() const override { return stack_->n_layers(); }

  double forward_flops(int64_t n) const override {
    if (n == 0) return 0;
    const double expansion = 2.0 * static_cast<double>(spec_.d_context) *
                             static_cast<double>(n_vectors_ * stack_->d_model());
    return expansion + stack_->forward_flops(Phase::kTrain, n_front_ - 1 + n, 1).total();
  }

  int64_t state_bytes(int64_t n, torch::Dtype dtype) const override {
    return stack_->state_bytes(n_front_ + n, dtype).total();
  }

 protected:
  struct Expanded {
    Tensor front;  // [M, F, D], the inputs in front of the tokens
    Tensor added;  // [M, L - 1, D], what is added to the tokens' embeddings; undefined = nothing
  };
  /// vectors: [M, r, D].
  virtual Expanded inputs_of(const Tensor& vectors) const = 0;

  Tensor expanded(const Tensor& context) const {
    return expansion_->forward(context).unflatten(-1, {n_vectors_, stack_->d_model()});
  }
  /// Inputs [M, n, D] of tokens [M, n], the first of which is token `begin` of its block.
  Tensor embedded(const Tensor& tokens, const Tensor& added, int64_t begin) const {
    const auto x = embedding_->forward(tokens);
    return added.defined() ? x + added.narrow(1, begin, tokens.size(1)).to(x.scalar_type()) : x;
  }

  const TokenDecoderSpec spec_;
  const int64_t n_vectors_, n_front_;
  const std::shared_ptr<DecoderStack> stack_;

 private:
  /// x: [B, n, D] -> [B, D] of the last.
  Tensor extend(const Tensor& x, CachedState& state) {
    ForwardContext context;
    context.positions = positions_after(state.stack->lengths, x.size(1));
    context.runner = state.runner;
    return stack_->forward(x, context, state.stack.get(), Want::kLast).squeeze(1);
  }

  Embedding embedding_{nullptr};
  Linear expansion_{nullptr}, head_{nullptr};
};

class PrefixDecoder : public StackTokenDecoder {
 public:
  PrefixDecoder(const PrefixDecoderConfig& config, const TokenDecoderSpec& spec,
                std::shared_ptr<DecoderStack> stack)
      : StackTokenDecoder(spec, std::move(stack), config.prefix_length, config.prefix_length) {}

 protected:
  Expanded inputs_of(const Tensor& vectors) const override { return {vectors, {}}; }
};

/// Generates with the rotary positions of the official code: 0 for all vectors of the prefix, j + 1
/// for token j of the block. A cache counts its positions, so the block is run again at each step.
class OfficialPrefixDecoder final : public PrefixDecoder {
 public:
  using PrefixDecoder::PrefixDecoder;

  std::pair<Tensor, std::unique_ptr<LocalState>> begin(const Tensor& context, const Tensor& tokens,
                                                       const StateShape& shape) override {
    const torch::NoGradGuard no_grad;
    check_begin(spec_, context, tokens);
    auto state =
        std::make_unique<KeptInputs>(expanded(context), embedded(tokens, /*added=*/{}, 0), shape);
    const Tensor h = run(*state);
    return {h, std::move(state)};
  }

  Tensor step(const Tensor& token, LocalState& state) override {
    const torch::NoGradGuard no_grad;
    auto& own = dynamic_cast<KeptInputs&>(state);
    check_step(spec_, own.inputs.size(1));
    own.append(embedded(token.unsqueeze(1), /*added=*/{}, 0));
    return run(own);
  }

  int64_t state_bytes(int64_t n, torch::Dtype dtype) const override {
    return (n_vectors_ + n) * stack_->d_model() * kept_element_size(dtype);
  }

 private:
  Tensor run(const KeptInputs& state) const {
    const auto x = torch::cat({state.context, state.inputs}, 1);  // [B, r + n, D]
    ForwardContext context;
    context.positions =
        torch::arange(1 - n_vectors_, state.inputs.size(1) + 1, x.options().dtype(torch::kInt64))
            .clamp_min(0)
            .expand({x.size(0), -1});
    context.runner = state.runner;
    const auto dtype = head_weight().scalar_type();
    return stack_->forward(x.to(dtype), context, /*state=*/nullptr, Want::kLast).squeeze(1);
  }
};

class SummationDecoder final : public StackTokenDecoder {
 public:
  SummationDecoder(const SummationDecoderConfig& config, const TokenDecoderSpec& spec,
                   std::shared_ptr<DecoderStack> stack)
      : StackTokenDecoder(spec, std::move(stack), /*n_vectors=*/spec.block_length, /*n_front=*/1),
        bos_id_(config.bos_id) {
    check_bos(bos_id_, spec);
  }

  int64_t state_bytes(int64_t n, torch::Dtype dtype) const override {
    return StackTokenDecoder::state_bytes(n, dtype) +
           (spec_.block_length - 1) * stack_->d_model() * kept_element_size(dtype);
  }

 protected:
  Expanded inputs_of(const Tensor& vectors) const override {
    const auto bos =
        torch::full({vectors.size(0), 1}, bos_id_, vectors.options().dtype(torch::kInt64));
    return {embedded(bos, vectors, 0), vectors.narrow(1, 1, spec_.block_length - 1)};
  }

 private:
  const int64_t bos_id_;
};

}  // namespace

std::shared_ptr<TokenDecoder> make_prefix_decoder(const PrefixDecoderConfig& config,
                                                  const TokenDecoderSpec& spec,
                                                  std::shared_ptr<DecoderStack> stack) {
  // With one vector in front the official positions are those of training.
  if (spec.official_generation_positions && config.prefix_length > 1)
    return std::make_shared<OfficialPrefixDecoder>(config, spec, std::move(stack));
  return std::make_shared<PrefixDecoder>(config, spec, std::move(stack));
}

std::shared_ptr<TokenDecoder> make_summation_decoder(const SummationDecoderConfig& config,
                                                     const TokenDecoderSpec& spec,
                                                     std::shared_ptr<DecoderStack> stack) {
  return std::make_shared<SummationDecoder>(config, spec, std::move(stack));
}

}  // namespace tandem
