#include "blocktf/uptrain.h"

#include <cmath>
#include <map>
#include <optional>

#include "core/error.h"
#include "nn/gpt_neox.h"
#include "nn/transformer.h"
#include "tests/nn/helpers.h"

namespace tandem {
namespace {

using Weights = std::map<std::string, Tensor>;

constexpr int64_t kVocab = 17;

StackFactory stacks() {
  static const std::vector<Option> options = {option<NeoxStackConfig>("gpt_neox"),
                                              option<LayerStackConfig>("transformer")};
  return {options, [](const Choice& stack) -> std::shared_ptr<DecoderStack> {
            if (stack.name == "gpt_neox") return make_neox_stack(stack.as<NeoxStackConfig>());
            return std::make_shared<LayerStack>(stack.as<LayerStackConfig>());
          }};
}

// ---- models to start from

struct Source {
  std::shared_ptr<LanguageModel> model;
  UptrainSource uptrain;
  Weights weights;

  void set_model(std::shared_ptr<LanguageModel> made) {
    model = std::move(made);
    materialise_random(*model, 3);
    for (const auto& item : model->named_parameters()) {
      weights.emplace(item.key(), item.value().detach());
    }
    uptrain.vocab_size = kVocab;
    uptrain.weight = [all = weights](const std::string& name) { return all.at(name); };
  }
};

// Llama-like with all that its ends can have.
Source transformer_source() {
  TransformerConfig config;
  config.vocab_size = kVocab;
  config.tie_embeddings = config.embedding_scale = true;
  config.d_model = 10;
  config.ffn_dim = 13;
  config.norm_eps = 1e-3;
  config.n_layers = 3;
  config.n_heads = 4;
  config.n_kv_heads = 2;
  config.head_dim = 6;
  config.rope.base = 100;
  Source source;
  source.set_model(make_transformer(config));
  source.uptrain.stack = stacks().choice();
  source.uptrain.stack.pick("transformer");
  source.uptrain.stack.as<LayerStackConfig>() = config;
  source.uptrain.embedding_scale = std::sqrt(10.0);
  source.uptrain.tied = true;
  return source;
}

Source neox_source(bool like_gpt2 = false) {
  GptNeoxConfig config;
  config.vocab_size = kVocab;
  config.d_model = 24;
  config.ffn_dim = 29;
  config.norm_eps = 1e-3;
  config.n_layers = 3;
  config.n_heads = 3;
  config.rope.fraction = 0.5;
  if (like_gpt2) {
    config.tie_embeddings = true;
    config.parallel_residual = false;
    config.activation = "gelu_tanh";
    config.rope.base = std::nullopt;
  }
  Source source;
  source.set_model(make_gpt_neox(config));
  source.uptrain.stack = stacks().choice();
  source.uptrain.stack.pick("gpt_neox");
  source.uptrain.stack.as<NeoxStackConfig>() = config;
  source.uptrain.tied = like_gpt2;
  return source;
}

// ---- what they are made into

// `to` becomes a stack like `source`, with layers of its own number.
void assign(Choice& to, const Choice& source, int64_t n_layers) {
  to.pick(source.name);
  if (source.name == "gpt_neox") {
    to.as<NeoxStackConfig>() = source.as<NeoxStackConfig>();
    to.as<NeoxStackConfig>().n_layers = n_layers;
  } else {
    to.as<LayerStackConfig>() = source.as<LayerStackConfig>();
    to.as<LayerStackConfig>().n_layers = n_layers;
  }
}

BlockTransformerConfig config_for(const Source& source, int64_t block_length = 3,
                                  int64_t prefix_length = 2, int64_t n_lower = 1) {
  static const auto token_decoders = token_decoder_options(stacks().options);
  auto config = block_transformer_defaults(stacks().options, token_decoders);
  config.vocab_size = kVocab;
  config.block_length = block_length;
  config.embedder.pick("lookup");
  config.embedder.as<LookupEmbedderConfig>().combine = "projection";
  assign(config.block_decoder, source.uptrain.stack, n_lower);
  config.token_decoder.pick("prefix");
  config.token_decoder.as<PrefixDecoderConfig>().prefix_length = prefix_length;
  assign(config.token_decoder.as<PrefixDecoderConfig>().stack, source.uptrain.stack, 3 - n_lower);
  return config;
}

// ---- the uptrained model out of the source's weights, in plain arithmetic

class Reference {
 public:
  explicit Reference(const Source& source) : source_(source), w_(source.weights) {
    if (source.uptrain.stack.name == "gpt_neox") {
      neox_ = source.uptrain.stack.as<NeoxStackConfig>();
      n_heads_ = n_kv_heads_ = neox_->n_heads;
      head_dim_ = neox_->channels_per_head();
      rope_ = neox_->rope;
      eps_ = neox_->norm_eps;
    } else {
      const auto& llama = source.uptrain.stack.as<LayerStackConfig>();
      n_heads_ = llama.n_heads;
      n_kv_heads_ = *llama.n_kv_heads;
      head_dim_ = llama.head_dim;
      rope_ = llama.rope;
      eps_ = llama.norm_eps;
    }
  }

  // NLL of tokens block_length .. n-1 of a row.
  Tensor nll(const Tensor& tokens, const BlockTransformerConfig& config, int64_t n_lower) const {
    const int64_t length = config.block_length, n = tokens.size(0), n_blocks = (n - 1) / length;
    const auto n_prefix = config.token_decoder.as<PrefixDecoderConfig>().prefix_length;
    const Tensor x =
        w_.at("embedding.weight").index_select(0, tokens) * source_.uptrain.embedding_scale;
    const Tensor means = x.narrow(0, 0, n_blocks * length).view({n_blocks, length, -1}).mean(1);
    const Tensor ones = torch::ones({x.size(1)}, torch::kFloat64);
    const Tensor contexts = norm(layers(means, 0, n_lower), ones, torch::zeros_like(ones));
    const Tensor head = w_.at(source_.uptrain.tied ? "embedding.weight" : "head.weight");
    Tensors out;
    for (int64_t i = length; i < n; ++i) {
      const int64_t begin = i / length * length;
      Tensors inputs(static_cast<size_t>(n_prefix), contexts[i / length - 1]);
      for (int64_t t = begin; t < i; ++t) inputs.push_back(x[t]);
      const Tensor y = norm(layers(torch::stack(inputs), n_lower, 3), "final_norm")[-1];
      out.push_back(-torch::log_softmax(torch::mv(head, y), 0)[tokens[i].item<int64_t>()]);
    }
    return torch::stack(out);
  }

 private:
  Tensor norm(const Tensor& x, const Tensor& weight, const Tensor& bias) const {
    if (!neox_) return x * torch::rsqrt(x.square().mean(-1, true) + eps_) * weight;
    const Tensor centred = x - x.mean(-1, true);
    return centred * torch::rsqrt(centred.square().mean(-1, true) + eps_) * weight + bias;
  }
  Tensor norm(const Tensor& x, const std::string& name) const {
    return norm(x, w_.at(name + ".weight"), neox_ ? w_.at(name + ".bias") : Tensor());
  }
  Tensor linear(const Tensor& x, const std::string& name) const {
    const Tensor y = torch::mm(x, w_.at(name + ".weight").t());
    return neox_ ? y + w_.at(name + ".bias") : y;
  }
  // [T, H, K]
  Tensor heads(const Tensor& x, const std::string& name, bool rotate) const {
    const Tensor y = linear(x, name).view({x.size(0), -1, head_dim_});
    if (!rotate || !rope_.base) return y;
    const auto rotated = static_cast<int64_t>(rope_.fraction * static_cast<double>(head_dim_));
    const int64_t half = rotated / 2;
    const Tensor angles =
        torch::arange(x.size(0), torch::kFloat64).view({-1, 1, 1}) *
        torch::pow(*rope_.base, -2 * torch::arange(half, torch::kFloat64) / rotated);
    const Tensor a = y.narrow(2, 0, half), b = y.narrow(2, half, half);
    return torch::cat({a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin(),
                       y.narrow(2, rotated, head_dim_ - rotated)},
                      2);
  }
  Tensor attention(const Tensor& x, const std::string& at) const {
    const Tensor q = heads(x, at + "q_proj", true), k = heads(x, at + "k_proj", true);
    const Tensor v = heads(x, at + "v_proj", false);
    Tensors mixed;
    for (int64_t t = 0; t < x.size(0); ++t) {
      for (int64_t h = 0; h < n_heads_; ++h) {
        const int64_t shared = h * n_kv_heads_ / n_heads_;
        const Tensor keys = k.select(1, shared).narrow(0, 0, t + 1);
        const Tensor values = v.select(1, shared).narrow(0, 0, t + 1);
        const Tensor scores = torch::mv(keys, q[t][h]) / std::sqrt(static_cast<double>(head_dim_));
        mixed.push_back(torch::mv(values.t(), torch::softmax(scores, 0)));
      }
    }
    return linear(torch::cat(mixed).view({x.size(0), -1}), at + "o_proj");
  }
  Tensor feed_forward(const Tensor& x, const std::string& at) const {
    const Tensor up = linear(x, at + "up_proj");
    if (!neox_) {
      const Tensor gate = linear(x, at + "gate_proj");
      return linear(gate * torch::sigmoid(gate) * up, at + "down_proj");
    }
    if (neox_->activation == "gelu")
      return linear(up * 0.5 * (1 + torch::erf(up / std::sqrt(2.0))), at + "down_proj");
    const Tensor inner = std::sqrt(2 / M_PI) * (up + 0.044715 * up.pow(3));
    return linear(up * 0.5 * (1 + torch::tanh(inner)), at + "down_proj");
  }
  Tensor layers(Tensor x, int64_t begin, int64_t end) const {
    for (int64_t i = begin; i < end; ++i) {
      const std::string at = "layers." + std::to_string(i) + ".";
      const Tensor h = x + attention(norm(x, at + "mixer_norm"), at + "mixer.");
      const Tensor& of = neox_ && neox_->parallel_residual ? x : h;
      x = h + feed_forward(norm(of, at + "ffn_norm"), at + "ffn.");
    }
    return x;
  }

  const Source& source_;
  const Weights& w_;
  std::optional<NeoxStackConfig> neox_;  // absent: Llama-like
  int64_t n_heads_, n_kv_heads_, head_dim_;
  RopeConfig rope_;
  double eps_;
};

// ---- tests

struct Case {
  std::string name;
  Source (*source)();
  int64_t block_length, prefix_length, n_lower;
};

class UptrainTest : public testing::TestWithParam<Case> {};

TEST_P(UptrainTest, TheLossAtTheStartIsComposedOfTheSourcesParts) {
  const auto& [name, make_source, length, prefix_length, n_lower] = GetParam();
  const Source source = make_source();
  const auto config = config_for(source, length, prefix_length, n_lower);
  const auto model = make_block_transformer(config, stacks());
  initialise(*model, 5, torch::kCPU, torch::kFloat64);
  uptrain(config, *model, source.uptrain);

  constexpr int64_t kTokens = 14;  // a multiple of no block length: the last block is not full
  const Tensor tokens = torch::randint(kVocab, {2, kTokens}, seeded(4), torch::kInt64);
  Batch batch;
  batch.tokens = tokens.narrow(1, 0, kTokens - 1);
  batch.targets = tokens.narrow(1, 1, kTokens - 1).clone();
  batch.targets.narrow(1, 0, length - 1).fill_(-100);
  batch.samples = torch::arange(2);
  const Loss loss = model->loss(batch, {});
  const Reference reference(source);
  const Tensor expected = torch::stack(
      {reference.nll(tokens[0], config, n_lower), reference.nll(tokens[1], config, n_lower)});
  expect_close(loss.nll.narrow(1, length - 1, kTokens - length), expected);
  expect_close(loss.sum, expected.sum(), 1e-9);
}

INSTANTIATE_TEST_SUITE_P(
    All, UptrainTest,
    testing::Values(Case{"Transformer", transformer_source, 3, 2, 1},
                    Case{"TransformerPrefix1", transformer_source, 4, 1, 2},
                    Case{"GptNeox", [] { return neox_source(); }, 4, 2, 1},
                    Case{"GptNeoxPrefix3", [] { return neox_source(); }, 3, 3, 2},
                    Case{"Gpt2WithoutPositions", [] { return neox_source(true); }, 5, 2, 1}),
    [](const auto& given) { return given.param.name; });

TEST(UptrainStartTest, TheBlockDecodersFinalNormIsLeftAlone) {
  const Source source = neox_source();
  const auto config = config_for(source);
  const auto model = make_block_transformer(config, stacks());
  materialise_random(*model, 5);
  Weights before;
  for (const auto& item : model->named_parameters()) {
    before.emplace(item.key(), item.value().detach().clone());
  }
  uptrain(config, *model, source.uptrain);
  for (const auto& item : model->named_parameters()) {
    const bool left_alone = item.key().starts_with("block_decoder.final_norm.");
    EXPECT_EQ(torch::equal(item.value(), before.at(item.key())), left_alone) << item.key();
    EXPECT_TRUE(item.value().requires_grad()) << item.key();
  }
}

TEST(UptrainStartTest, BiasesAndMapsInFloat32) {
  const Source source = neox_source();
  const auto config = config_for(source, /*block_length=*/3, /*prefix_length=*/2);
  const auto model = make_block_transformer(config, stacks());
  materialise_random(*model, 5, torch::kFloat32);
  uptrain(config, *model, source.uptrain);
  const auto parameters = model->named_parameters();
  const Tensor identity = torch::eye(24);
  EXPECT_TRUE(torch::equal(parameters["embedder.projection.weight"],
                           torch::cat({identity, identity, identity}, 1) / 3));
  EXPECT_TRUE(torch::equal(parameters["token_decoder.expansion.weight"],
                           torch::cat({identity, identity}, 0)));
  for (const char* name : {"embedder.projection.bias", "token_decoder.expansion.bias"}) {
    EXPECT_EQ(parameters[name].abs().max().item<double>(), 0) << name;
  }
}

// The message for a config that `change` makes out of one that fits; "" where nothing is wrong.
std::string message_of(const Source& source,
                       const std::function<void(BlockTransformerConfig&)>& change) {
  auto config = config_for(source);
  const auto model = make_block_transformer(config, stacks());
  materialise_empty(*model, torch::kCPU, torch::kFloat32);
  change(config);
  try {
    uptrain(config, *model, source.uptrain);
  } catch (const UserError& error) {
    EXPECT_EQ(error.exit_code(), kExitUsage);
    return error.what();
  }
  return "";
}

Choice& token_stack(BlockTransformerConfig& config) {
  return config.token_decoder.as<PrefixDecoderConfig>().stack;
}

TEST(UptrainErrorTest, PartsOfOtherKinds) {
  const Source source = neox_source();
  using Config = BlockTransformerConfig;
  EXPECT_EQ(message_of(source, [](Config&) {}), "");
  EXPECT_EQ(message_of(source, [](Config& c) { c.embedder.pick("cls"); }),
            "init.as = uptrain: model.embedder.kind = cls, expected lookup");
  EXPECT_EQ(message_of(source,
                       [](Config& c) { c.embedder.as<LookupEmbedderConfig>().combine = "concat"; }),
            "init.as = uptrain: model.embedder.combine = concat, expected projection");
  EXPECT_EQ(
      message_of(source, [](Config& c) { c.embedder.as<LookupEmbedderConfig>().d_embed = 24; }),
      "");
  EXPECT_EQ(
      message_of(source, [](Config& c) { c.embedder.as<LookupEmbedderConfig>().d_embed = 8; }),
      "init.as = uptrain: model.embedder.d_embed = 8, expected 24, d_model of the model to start "
      "from");
  EXPECT_EQ(message_of(source, [](Config& c) { c.token_decoder.pick("summation"); }),
            "init.as = uptrain: model.token_decoder.kind = summation, expected prefix");
  EXPECT_EQ(message_of(source, [](Config& c) { c.block_decoder.pick("transformer"); }),
            "init.as = uptrain: model.block_decoder.stack = transformer, expected gpt_neox, as in "
            "the model to start from");
  EXPECT_EQ(message_of(source, [](Config& c) { token_stack(c).pick("transformer"); }),
            "init.as = uptrain: model.token_decoder.stack = transformer, expected gpt_neox, as in "
            "the model to start from");
}

TEST(UptrainErrorTest, EverySettingOfGptNeoxLayers) {
  const Source source = neox_source();
  const auto block = [&](const std::function<void(NeoxStackConfig&)>& change) {
    return message_of(
        source, [&](BlockTransformerConfig& c) { change(c.block_decoder.as<NeoxStackConfig>()); });
  };
  const auto expected = [](const std::string& key, const std::string& value,
                           const std::string& wanted) {
    return "init.as = uptrain: model.block_decoder." + key + " = " + value + ", expected " +
           wanted + ", as in the model to start from";
  };
  EXPECT_EQ(block([](auto& c) { c.d_model = 48; }), expected("d_model", "48", "24"));
  EXPECT_EQ(block([](auto& c) { c.ffn_dim = 30; }), expected("ffn_dim", "30", "29"));
  EXPECT_EQ(block([](auto& c) { c.norm_eps = 0.5; }), expected("norm_eps", "0.5", "0.001"));
  EXPECT_EQ(block([](auto& c) { c.n_heads = 6; }), expected("n_heads", "6", "3"));
  EXPECT_EQ(block([](auto& c) { c.head_dim = 8; }), "");  // what d_model / n_heads is
  EXPECT_EQ(block([](auto& c) { c.head_dim = 6; }), expected("head_dim", "6", "8"));
  EXPECT_EQ(block([](auto& c) { c.rope.base = 500; }), expected("rope.base", "500", "10000"));
  EXPECT_EQ(block([](auto& c) { c.rope.base.reset(); }), expected("rope.base", "none", "10000"));
  EXPECT_EQ(block([](auto& c) { c.rope.fraction = 1; }), expected("rope.fraction", "1", "0.5"));
  EXPECT_EQ(block([](auto& c) { c.rope.pairs = "interleaved"; }),
            expected("rope.pairs", "interleaved", "halves"));
  EXPECT_EQ(block([](auto& c) { c.parallel_residual = false; }),
            expected("parallel_residual", "false", "true"));
  EXPECT_EQ(block([](auto& c) { c.activation = "gelu_tanh"; }),
            expected("activation", "gelu_tanh", "gelu"));
  EXPECT_EQ(message_of(source,
                       [](BlockTransformerConfig& c) {
                         token_stack(c).as<NeoxStackConfig>().ffn_dim = 31;
                       }),
            "init.as = uptrain: model.token_decoder.ffn_dim = 31, expected 29, as in the model to "
            "start from");
}

TEST(UptrainErrorTest, KeyHeadsOfTransformerLayers) {
  Source source = transformer_source();
  const auto message = [&](std::optional<int64_t> n_kv_heads) {
    return message_of(source, [&](BlockTransformerConfig& c) {
      c.block_decoder.as<LayerStackConfig>().n_kv_heads = n_kv_heads;
    });
  };
  EXPECT_EQ(message(std::nullopt),
            "init.as = uptrain: model.block_decoder.n_kv_heads = 4, expected 2, as in the model to "
            "start from");
  EXPECT_EQ(message(2), "");
}

TEST(UptrainErrorTest, DepthsAndVocabularies) {
  const Source source = neox_source();
  EXPECT_EQ(message_of(source,
                       [](BlockTransformerConfig& c) {
                         c.block_decoder.as<NeoxStackConfig>().n_layers = 2;
                       }),
            "init.as = uptrain: model.block_decoder.n_layers + model.token_decoder.n_layers = 2 + "
            "2, expected together 3, as in the model to start from");
  Source larger = neox_source();
  larger.uptrain.vocab_size = 19;
  EXPECT_EQ(message_of(larger, [](BlockTransformerConfig&) {}),
            "init.as = uptrain: model.vocab_size = 17, expected 19, as in the model to start from");
}

}  // namespace
}  // namespace tandem
