#include "blocktf/embedder.h"

#include <cmath>
#include <vector>

#include "blocktf/encoder_layer.h"
#include "nn/linear.h"
#include "nn/norm.h"

namespace tandem {
namespace {

constexpr double kLookupStd = 0.02;
// RoBERTa's ids in a vocabulary that is not RoBERTa's: what its code calls the beginning of a text
// and padding are ordinary tokens here, but the latter gets no position of its own, and row 1 of
// its tables gets no gradient. (Official models begin with zeros there; here all rows are drawn
// alike.)
constexpr int64_t kClsToken = 0;
constexpr int64_t kUnnumberedToken = 1;
constexpr int64_t kFirstPosition = 2;  // of a numbered token

// From n_vectors vectors of `dim` channels, laid end to end, to a block embedding.
Linear make_projection(int64_t n_vectors, int64_t dim, int64_t d_model) {
  const int64_t in = n_vectors * dim;
  const double std = 1 / std::sqrt(static_cast<double>(in));
  return Linear(in, d_model, init_normal(std), Split::kNone, /*bias=*/true);
}

void check_arguments(const EmbedderSpec& spec, const Tensor& tokens, const Tensor& real) {
  TORCH_CHECK(tokens.dim() >= 1 && tokens.size(-1) == spec.block_length, "tokens are ",
              tokens.sizes(), ", expected blocks of ", spec.block_length);
  TORCH_CHECK(!real.defined() || real.sizes() == tokens.sizes(), "real is ", real.sizes(),
              ", tokens are ", tokens.sizes());
}

class LookupEmbedder final : public Embedder {
 public:
  LookupEmbedder(const LookupEmbedderConfig& config, const EmbedderSpec& spec) : spec_(spec) {
    d_embed_ = config.width(spec.block_length, spec.d_model);
    TORCH_CHECK(config.projects() || d_embed_ * spec.block_length == spec.d_model, "concat of ",
                spec.block_length, " tokens of ", d_embed_, " channels does not give ",
                spec.d_model);
    embedding_ =
        register_module("embedding", Embedding(spec.vocab_size, d_embed_, init_normal(kLookupStd),
                                               /*frozen=*/-1, Split::kRows));
    if (!config.projects()) return;
    projection_ =
        register_module("projection", make_projection(spec.block_length, d_embed_, spec.d_model));
  }

  Tensor forward(const Tensor& tokens, const Tensor& real, const ForwardContext&) override {
    check_arguments(spec_, tokens, real);
    const auto joined = embedding_->forward(tokens).flatten(-2);  // [..., L * E]
    return projection_ ? projection_->forward(joined) : joined;
  }

  double forward_flops(double n_blocks) const override {
    return projection_ ? 2.0 * spec_.block_length * d_embed_ * spec_.d_model * n_blocks : 0;
  }

 private:
  EmbedderSpec spec_;
  int64_t d_embed_;
  Embedding embedding_{nullptr};
  Linear projection_{nullptr};
};

// [M, S] -> [M, S]: 2, 3, ... of the numbered tokens.
Tensor positions_of_tokens(const Tensor& ids) {
  const auto numbered = ids.ne(kUnnumberedToken).to(torch::kInt64);
  return numbered.cumsum(1) * numbered + (kFirstPosition - 1);
}

// RoBERTa over the tokens of a block, or over CLS tokens and those of the block.
class EncoderEmbedder final : public Embedder {
 public:
  EncoderEmbedder(const EncoderConfig& config, int64_t n_cls, const EmbedderSpec& spec)
      : spec_(spec), n_cls_(n_cls), d_embed_(config.d_embed) {
    TORCH_CHECK(config.max_positions >= n_tokens() + kFirstPosition, "max_positions is ",
                config.max_positions, ", positions go up to ", n_tokens() + kFirstPosition - 1);
    const auto table = [&](const char* name, int64_t count, int64_t frozen, Split split) {
      return register_module(name,
                             Embedding(count, d_embed_, init_normal(kEncoderStd), frozen, split));
    };
    embedding_ = table("embedding", spec.vocab_size, kUnnumberedToken, Split::kRows);
    position_embedding_ =
        table("position_embedding", config.max_positions, kFirstPosition - 1, Split::kNone);
    type_embedding_ = table("type_embedding", 1, /*frozen=*/-1, Split::kNone);
    norm_ = register_module("norm", LayerNorm(d_embed_, config.norm_eps));
    const auto layers = register_module("layers", std::make_shared<Module>());
    for (int64_t i = 0; i < config.n_layers; ++i) {
      layers_.push_back(
          layers->register_module(std::to_string(i), std::make_shared<EncoderLayer>(config)));
    }
    projection_ =
        register_module("projection", make_projection(n_projected(), d_embed_, spec.d_model));
  }

  Tensor forward(const Tensor& tokens, const Tensor& real, const ForwardContext& context) override {
    check_arguments(spec_, tokens, real);
    // [M, S] of all blocks
    auto ids =
        at::constant_pad_nd(tokens.reshape({-1, spec_.block_length}), {n_cls_, 0}, kClsToken);
    Tensor score_bias;
    if (real.defined()) {
      const auto keys = real.reshape({-1, spec_.block_length});
      score_bias = score_bias_of(at::constant_pad_nd(keys, {n_cls_, 0}, true),
                                 embedding_->weight().scalar_type());
    }
    auto x = norm_->forward(embedding_->forward(ids) + type_embedding_->weight() +
                            position_embedding_->forward(positions_of_tokens(ids)));  // [M, S, E]
    for (const auto& layer : layers_) x = layer->forward(x, score_bias, context);
    auto shape = tokens.sizes().vec();
    shape.back() = spec_.d_model;
    return projection_->forward(x.narrow(1, 0, n_projected()).flatten(1)).view(shape);
  }

  double forward_flops(double n_blocks) const override {
    double of_block = 2.0 * n_projected() * d_embed_ * spec_.d_model;
    for (const auto& layer : layers_) of_block += layer->forward_flops(n_tokens());
    return of_block * n_blocks;
  }

 private:
  int64_t n_tokens() const { return n_cls_ + spec_.block_length; }
  int64_t n_projected() const { return n_cls_ > 0 ? n_cls_ : spec_.block_length; }

  EmbedderSpec spec_;
  int64_t n_cls_;  // 0: all hidden states are projected
  int64_t d_embed_;
  Embedding embedding_{nullptr}, position_embedding_{nullptr}, type_embedding_{nullptr};
  LayerNorm norm_{nullptr};
  std::vector<std::shared_ptr<EncoderLayer>> layers_;
  Linear projection_{nullptr};
};

struct Kind {
  Option option;
  std::shared_ptr<Embedder> (*make)(const Choice& choice, const EmbedderSpec& spec);
  void (*check)(const Checker& check, const Choice& choice, int64_t block_length, int64_t d_model);
};

void check_lookup(const Checker& check, const Choice& choice, int64_t block_length,
                  int64_t d_model) {
  const auto& config = choice.as<LookupEmbedderConfig>();
  if (config.projects()) return;
  const std::string quotient =
      "d_model / block_length = " + std::to_string(d_model) + " / " + std::to_string(block_length);
  check.require(d_model % block_length == 0, "combine", config.combine,
                "projection, as " + quotient + " is no integer");
  const int64_t d_embed = d_model / block_length;
  const int64_t given = config.d_embed.value_or(d_embed);
  check.require(given == d_embed, "d_embed", std::to_string(given),
                std::to_string(d_embed) + " (" + quotient + ") with combine: concat");
}

void check_positions(const Checker& check, const EncoderConfig& config, int64_t n_tokens,
                     const std::string& tokens) {
  check.require(config.max_positions >= n_tokens + kFirstPosition, "max_positions",
                std::to_string(config.max_positions),
                "an integer >= " + std::to_string(n_tokens + kFirstPosition) + ": " + tokens +
                    " + " + std::to_string(kFirstPosition));
}

const Kind kKinds[] = {
    {option<LookupEmbedderConfig>("lookup"),  // embedder: {kind: <name>, ...}
     [](const Choice& choice, const EmbedderSpec& spec) -> std::shared_ptr<Embedder> {
       return std::make_shared<LookupEmbedder>(choice.as<LookupEmbedderConfig>(), spec);
     },
     check_lookup},
    {option<EncoderEmbedderConfig>("encoder"),
     [](const Choice& choice, const EmbedderSpec& spec) -> std::shared_ptr<Embedder> {
       return std::make_shared<EncoderEmbedder>(choice.as<EncoderEmbedderConfig>(), 0, spec);
     },
     [](const Checker& check, const Choice& choice, int64_t block_length, int64_t) {
       check_positions(check, choice.as<EncoderEmbedderConfig>(), block_length, "block_length");
     }},
    {option<ClsEmbedderConfig>("cls"),
     [](const Choice& choice, const EmbedderSpec& spec) -> std::shared_ptr<Embedder> {
       const auto& config = choice.as<ClsEmbedderConfig>();
       return std::make_shared<EncoderEmbedder>(config, config.n_cls, spec);
     },
     [](const Checker& check, const Choice& choice, int64_t block_length, int64_t) {
       const auto& config = choice.as<ClsEmbedderConfig>();
       check_positions(check, config, config.n_cls + block_length, "n_cls + block_length");
     }},
};

const Kind& kind_of(const Choice& choice) {
  for (const auto& kind : kKinds) {
    if (kind.option.name == choice.name) return kind;
  }
  TORCH_CHECK(false, "no embedder is called '", choice.name, "'");
}

}  // namespace

void EncoderConfig::check(Checker& check) const {
  if (!head_dim) check.divides("n_heads", n_heads, "d_embed", d_embed);
}

std::span<const Option> embedder_options() {
  static const std::vector<Option> options = [] {
    std::vector<Option> rows;
    for (const auto& kind : kKinds) rows.push_back(kind.option);
    return rows;
  }();
  return options;
}

std::shared_ptr<Embedder> make_embedder(const Choice& choice, const EmbedderSpec& spec) {
  return kind_of(choice).make(choice, spec);
}

void check_embedder(const Checker& check, const Choice& choice, int64_t block_length,
                    int64_t d_model) {
  // As a section, so that keys are looked up and named where the user wrote them.
  struct Rules {
    const Choice& choice;
    int64_t block_length, d_model;
    void fields(Checker&) {}
    void check(Checker& inner) const {
      kind_of(choice).check(inner, choice, block_length, d_model);
    }
  } rules{choice, block_length, d_model};
  Checker outer = check;
  outer.section("embedder", rules);
}

}  // namespace tandem
