#include "blocktf/cross_attention_decoder.h"

#include <cmath>
#include <limits>

#include "blocktf/token_decoder_parts.h"
#include "comm/communicator.h"
#include "nn/layer_runner.h"
#include "nn/norm.h"
#include "nn/run_unit.h"

namespace tandem {
namespace {

double inverse_root(int64_t n) { return 1 / std::sqrt(static_cast<double>(n)); }

struct Projections {
  Linear q{nullptr}, k{nullptr}, v{nullptr}, o{nullptr};
};

/// Self-attention, attention to the context's vectors, feed-forward, each with its norm and its
/// residual.
class CrossAttentionLayer : public RunUnit {
 public:
  explicit CrossAttentionLayer(const CrossAttentionDecoderConfig& config)
      : head_dim_(config.head_dim) {
    const int64_t d_model = config.d_model;
    const auto norm = [&](const char* name) {
      return register_module(name, RmsNorm(d_model, config.norm_eps));
    };
    attention_norm_ = norm("attention_norm");
    attention_ = projections("", config);
    cross_norm_ = norm("cross_norm");
    cross_ = projections("cross_", config);
    ffn_norm_ = norm("ffn_norm");
    up_proj_ = register_module("up_proj", Linear(d_model, config.ffn_dim,
                                                 init_normal(inverse_root(d_model)), Split::kRows));
    down_proj_ = register_module(
        "down_proj", Linear(config.ffn_dim, d_model, init_normal(inverse_root(config.ffn_dim)),
                            Split::kColumns));
  }

  /// x: [M, n, D]; vectors: [M, r, D], which went through copy_to_group(); bias: [H, n, n] or [M,
  /// H, n, n] of this rank's heads -> [M, n, D].
  Tensor forward(const Tensor& x, const Tensor& vectors, const Tensor& bias,
                 const ForwardContext& context) {
    const auto layer = [this](const Tensors& inputs) -> Tensors {
      Tensor h = inputs[0];
      const auto normed = [&](const RmsNorm& norm) {
        return copy_to_group(norm->forward(h), tensor_group());
      };
      const Tensor y = normed(attention_norm_);
      h = h + attend_to(y, y, inputs[2], attention_);
      h = h + attend_to(normed(cross_norm_), inputs[1], /*bias=*/{}, cross_);
      return {h + down_proj_->forward(up_proj_->forward(normed(ffn_norm_)).relu())};
    };
    return run_layer(context, *this, {x, vectors, bias}, layer)[0];
  }

 private:
  Projections projections(const std::string& prefix, const CrossAttentionDecoderConfig& config) {
    const int64_t d_model = config.d_model, width = config.n_heads * config.head_dim;
    const auto to_heads = [&](const char* name, double std) {
      return register_module(prefix + name, Linear(d_model, width, init_normal(std), Split::kRows,
                                                   /*bias=*/false, config.head_dim));
    };
    Projections p;
    // Scores are not scaled, so queries begin smaller by the root of head_dim.
    p.q = to_heads("q_proj", inverse_root(d_model * config.head_dim));
    p.k = to_heads("k_proj", inverse_root(d_model));
    p.v = to_heads("v_proj", inverse_root(d_model));
    p.o = register_module(prefix + "o_proj",
                          Linear(width, d_model, init_normal(inverse_root(width)), Split::kColumns,
                                 /*bias=*/false, config.head_dim));
    return p;
  }

  /// Queries of x: [M, n, D] over keys and values of source: [M, s, D] -> [M, n, D]. The scores get
  /// `bias` and are not scaled.
  Tensor attend_to(const Tensor& x, const Tensor& source, const Tensor& bias,
                   const Projections& p) const {
    const auto wide = float_or_wider(x.scalar_type());
    const auto heads = [&](const Linear& projection, const Tensor& of) {
      return projection->forward(of).unflatten(-1, {-1, head_dim_}).transpose(1, 2).to(wide);
    };
    Tensor scores = at::matmul(heads(p.q, x), heads(p.k, source).transpose(2, 3));  // [M, H, n, s]
    if (bias.defined()) scores = scores + bias;
    const auto mixed = at::matmul(scores.softmax(-1), heads(p.v, source));  // [M, H, n, K]
    return p.o->forward(mixed.transpose(1, 2).flatten(2).to(x.scalar_type()));
  }

  const int64_t head_dim_;
  RmsNorm attention_norm_{nullptr}, cross_norm_{nullptr}, ffn_norm_{nullptr};
  Projections attention_, cross_;
  Linear up_proj_{nullptr}, down_proj_{nullptr};
};

class CrossAttentionDecoder final : public TokenDecoder {
 public:
  CrossAttentionDecoder(const CrossAttentionDecoderConfig& config, const TokenDecoderSpec& spec)
      : config_(config), spec_(spec) {
    check_bos(config.bos_id, spec);
    embedding_ =
        register_module("embedding", Embedding(spec.vocab_size, config.d_model, init_normal(1),
                                               /*frozen=*/-1, Split::kRows));
    expansion_ =
        register_module("expansion", make_expansion(spec, spec.block_length, config.d_model));
    position_bias_ =
        register_module("position_bias", Embedding(config.position_buckets, config.n_heads,
                                                   init_normal(inverse_root(config.d_model))));
    const auto layers = register_module("layers", std::make_shared<Module>());
    for (int64_t i = 0; i < config.n_layers; ++i) {
      layers_.push_back(layers->register_module(std::to_string(i),
                                                std::make_shared<CrossAttentionLayer>(config)));
    }
    final_norm_ = register_module("final_norm", RmsNorm(config.d_model, config.norm_eps));
  }

  Tensor forward(const Tensor& context, const Tensor& tokens, const Tensor& real,
                 const ForwardContext& base) override {
    check_blocks(spec_, context, tokens, real);
    return run(expanded(context), embedded_after_bos(tokens), real, base);
  }

  std::pair<Tensor, std::unique_ptr<LocalState>> begin(const Tensor& context, const Tensor& tokens,
                                                       const StateShape& shape) override {
    const torch::NoGradGuard no_grad;
    check_begin(spec_, context, tokens);
    auto state = std::make_unique<KeptInputs>(expanded(context), embedded_after_bos(tokens), shape);
    const Tensor h = run_last(*state);
    return {h, std::move(state)};
  }

  Tensor step(const Tensor& token, LocalState& state) override {
    const torch::NoGradGuard no_grad;
    auto& own = dynamic_cast<KeptInputs&>(state);
    check_step(spec_, own.inputs.size(1) - 1);
    own.append(embedding_->forward(token.unsqueeze(1)));
    return run_last(own);
  }

  const Tensor& head_weight() const override { return embedding_->weight(); }
  HeldRows head_part() const override { return embedding_->part(); }
  int64_t n_layers() const override { return config_.n_layers; }

  double forward_flops(int64_t n) const override {
    if (n == 0) return 0;
    const double d_model = static_cast<double>(config_.d_model),
                 width = static_cast<double>(config_.n_heads * config_.head_dim),
                 n_tokens = static_cast<double>(n),
                 n_vectors = static_cast<double>(spec_.block_length);
    const double expansion = 2 * static_cast<double>(spec_.d_context) * n_vectors * d_model;
    // q, k, v and o of the tokens, q and o once more, k and v of the vectors
    const double projections = 2 * d_model * width * (4 * n_tokens + 2 * n_tokens + 2 * n_vectors);
    const double pairs = n_tokens * (n_tokens + 1) / 2 + n_tokens * n_vectors;
    const double ffn = 4 * d_model * static_cast<double>(config_.ffn_dim) * n_tokens;
    return expansion +
           static_cast<double>(config_.n_layers) * (projections + 4 * width * pairs + ffn);
  }

  int64_t state_bytes(int64_t n, torch::Dtype dtype) const override {
    return (spec_.block_length + n + 1) * config_.d_model * kept_element_size(dtype);
  }

 private:
  Tensor expanded(const Tensor& context) const {
    return expansion_->forward(context).unflatten(-1, {spec_.block_length, config_.d_model});
  }
  /// tokens: [M, n] -> [M, n + 1, D].
  Tensor embedded_after_bos(const Tensor& tokens) const {
    return embedding_->forward(torch::constant_pad_nd(tokens, {1, 0}, config_.bos_id));
  }

  /// vectors: [M, L, D]; x: [M, n, D]; real: [M, n - 1], undefined = all -> [M, n, D].
  Tensor run(const Tensor& vectors, Tensor x, const Tensor& real, const ForwardContext& context) {
    const Tensor bias = self_attention_bias(x, real);
    const Tensor shared = copy_to_group(vectors, tensor_group());  // once for all layers
    for (const auto& layer : layers_) x = layer->forward(x, shared, bias, context);
    return final_norm_->forward(x) * inverse_root(config_.d_model);  // as the head is the table
  }
  Tensor run_last(const KeptInputs& state) {
    const auto dtype = embedding_->weight().scalar_type();
    ForwardContext context;
    context.runner = state.runner;
    const auto h = run(state.context.to(dtype), state.inputs.to(dtype), /*real=*/{}, context);
    return h.select(1, h.size(1) - 1);  // [B, D]
  }

  /// What the scores of every layer's self-attention get: the relative position bias, -infinity
  /// where a query does not see a key. [H, n, n], or [M, H, n, n] where `real` is given, of the
  /// heads that this rank holds (all ranks hold the table: it is small).
  Tensor self_attention_bias(const Tensor& x, const Tensor& real) const {
    const auto index = torch::arange(x.size(1), x.options().dtype(torch::kInt64));
    const auto distance = index.unsqueeze(1) - index;  // [n, n], of a query (row) from a key
    const auto buckets = causal_buckets(distance.clamp_min(0), config_.position_buckets,
                                        config_.max_position_distance);
    Tensor hidden = distance < 0;
    if (real.defined()) {
      const auto padding = torch::constant_pad_nd(real.logical_not(), {1, 0});  // BOS is real
      hidden = hidden | padding.view({-1, 1, 1, x.size(1)});                    // [M, 1, n, n]
    }
    Tensor bias = copy_to_group(position_bias_->forward(buckets), tensor_group());  // [n, n, H]
    if (Communicator* group = tensor_group()) {
      const auto [begin, end] = units_of_rank(config_.n_heads, group->rank(), group->size());
      bias = bias.narrow(2, begin, end - begin);
    }
    return bias.permute({2, 0, 1})
        .to(float_or_wider(x.scalar_type()))
        .masked_fill(hidden, -std::numeric_limits<double>::infinity());
  }

  const CrossAttentionDecoderConfig config_;
  const TokenDecoderSpec spec_;
  Embedding embedding_{nullptr}, position_bias_{nullptr};
  Linear expansion_{nullptr};
  std::vector<std::shared_ptr<CrossAttentionLayer>> layers_;
  RmsNorm final_norm_{nullptr};
};

}  // namespace

std::shared_ptr<TokenDecoder> make_cross_attention_decoder(
    const CrossAttentionDecoderConfig& config, const TokenDecoderSpec& spec) {
  return std::make_shared<CrossAttentionDecoder>(config, spec);
}

Tensor causal_buckets(const Tensor& distances, int64_t n_buckets, int64_t max_distance) {
  const int64_t exact = n_buckets / 2;
  const double growth = std::log(static_cast<double>(max_distance) / static_cast<double>(exact));
  const auto logarithm = (distances.clamp_min(exact).to(torch::kFloat64) / exact).log() / growth;
  const auto far = exact + (logarithm * (n_buckets - exact)).to(torch::kInt64);
  return torch::where(distances < exact, distances, far.clamp_max(n_buckets - 1));
}

}  // namespace tandem
