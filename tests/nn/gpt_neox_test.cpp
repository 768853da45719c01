#include "nn/gpt_neox.h"

#include <gmock/gmock.h>

#include <map>

#include "core/config.h"
#include "nn/recomputing_runner.h"
#include "tests/core/helpers.h"
#include "tests/nn/helpers.h"
#include "tests/nn/neox_reference.h"

// What is GPT-NeoX's own; what it shares with all models is in tests/cli/language_model_test.cpp.

namespace tandem {
namespace {

constexpr int64_t kVocab = 17, kTokens = 9;

// 4 of 10 channels are rotated, and 3 heads of 10 are not d_model.
GptNeoxConfig tiny_neox() {
  GptNeoxConfig config;
  config.vocab_size = kVocab;
  config.d_model = 13;
  config.ffn_dim = 19;
  config.norm_eps = 1e-3;
  config.n_layers = 2;
  config.n_heads = 3;
  config.head_dim = 10;
  config.rope.base = 50;
  config.rope.fraction = 0.45;
  return config;
}

GptNeoxConfig tiny_gpt2() {
  GptNeoxConfig config = tiny_neox();
  config.d_model = 12;
  config.head_dim.reset();
  config.rope.base.reset();
  config.tie_embeddings = true;
  config.max_positions = kTokens + 2;
  config.parallel_residual = false;
  config.activation = "gelu_tanh";
  return config;
}

struct Case {
  const char* name;
  GptNeoxConfig config;
  int64_t rotated;  // channels of each head
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

class GptNeoxTest : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override { materialise_random(*model_, 3); }

  Tensor reference_logits(const Tensor& tokens) const {
    const GptNeoxConfig& config = GetParam().config;
    const auto p = model_->named_parameters();
    const Weights weight = [&](const std::string& name) { return p[name]; };
    const NeoxLayerSpec spec{.d_model = config.d_model,
                             .ffn_dim = config.ffn_dim,
                             .n_heads = config.n_heads,
                             .head_dim = config.head_dim.value_or(config.d_model / config.n_heads),
                             .norm_eps = config.norm_eps,
                             .rope = config.rope,
                             .parallel_residual = config.parallel_residual,
                             .activation = config.activation};
    Tensor x = weight("embedding.weight").index_select(0, tokens);
    if (config.max_positions)
      x = x + weight("position_embedding.weight").narrow(0, 0, tokens.size(0));
    for (int64_t i = 0; i < config.n_layers; ++i) {
      x = neox_layer_of(x, spec, GetParam().rotated, weight, "layers." + std::to_string(i) + ".");
    }
    const auto h = layer_norm_of(x, weight, "final_norm", config.norm_eps);
    return torch::mm(h, weight(config.tie_embeddings ? "embedding.weight" : "head.weight").t());
  }
  std::unique_ptr<ModelState> state(int64_t batch) const {
    return model_->make_state({.batch = batch, .dtype = torch::kFloat64});
  }

  std::shared_ptr<LanguageModel> model_ = make_gpt_neox(GetParam().config);
  Tensor tokens_ = torch::randint(kVocab, {2, kTokens + 1}, seeded(4), torch::kInt64);
};

TEST_P(GptNeoxTest, LossAndGradientsEqualPlainArithmetic) {
  Batch batch;
  batch.tokens = tokens_.slice(1, 0, kTokens);
  batch.targets = tokens_.slice(1, 1);
  batch.samples = torch::arange(2);
  const auto loss = model_->loss(batch, ForwardContext{});
  Tensors nll;
  for (int64_t b = 0; b < 2; ++b) {
    const auto logits = reference_logits(batch.tokens[b]);
    const auto of_targets = logits.gather(1, batch.targets[b].unsqueeze(1)).squeeze(1);
    nll.push_back(logits.exp().sum(-1).log() - of_targets);
  }
  const auto expected = torch::stack(nll);
  expect_close(loss.nll, expected);
  const auto gradients = torch::autograd::grad({loss.sum}, model_->parameters());
  const auto expected_gradients = torch::autograd::grad({expected.sum()}, model_->parameters());
  for (size_t i = 0; i < gradients.size(); ++i) {
    SCOPED_TRACE(model_->named_parameters().keys()[i]);
    expect_close(gradients[i], expected_gradients[i]);
  }
  RecomputingRunner runner;
  ForwardContext recomputing;
  recomputing.runner = &runner;
  model_->loss(batch, recomputing).sum.backward();
  for (size_t i = 0; i < gradients.size(); ++i)
    expect_close(model_->parameters()[i].grad(), gradients[i], 0);
}

TEST_P(GptNeoxTest, PiecesOfRowsOfDifferentLengthsEqualTheWhole) {
  const auto expected = torch::stack({reference_logits(tokens_[0]), reference_logits(tokens_[1])});
  const auto whole = state(2);
  expect_close(model_->extend(tokens_, {}, *whole, Want::kAll), expected);
  const auto pieces = state(2);
  const auto lengths = torch::tensor({6, 3}, torch::kInt64);
  expect_close(model_->extend(tokens_.slice(1, 0, 6), lengths, *pieces, Want::kLast),
               torch::stack({expected[0][5], expected[1][2]}));
  for (int64_t t = 0; t < 4; ++t) {
    const auto next = torch::stack({tokens_[0][6 + t], tokens_[1][3 + t]}).unsqueeze(1);
    expect_close(model_->extend(next, {}, *pieces, Want::kLast),
                 torch::stack({expected[0][6 + t], expected[1][3 + t]}));
  }
}

TEST_P(GptNeoxTest, NamesShapesAndInitialValues) {
  const GptNeoxConfig& config = GetParam().config;
  const int64_t width = config.n_heads * config.channels_per_head(), d = config.d_model;
  std::map<std::string, std::vector<int64_t>> shapes, expected;
  for (const auto& info : parameters_info(*model_)) {
    shapes[info.name] = info.global_shape;
    const bool matrix = info.global_shape.size() > 1;
    EXPECT_EQ(info.decay, matrix) << info.name;
    if (matrix) {
      EXPECT_EQ(info.init.kind, Init::Kind::kNormal) << info.name;
      EXPECT_EQ(info.init.value, 0.02) << info.name;
    }
  }
  const auto both = [&](const std::string& name, std::vector<int64_t> shape) {
    expected[name + ".bias"] = {shape[0]};
    expected[name + ".weight"] = std::move(shape);
  };
  expected["embedding.weight"] = {kVocab, d};
  if (config.max_positions) expected["position_embedding.weight"] = {*config.max_positions, d};
  if (!config.tie_embeddings) expected["head.weight"] = {kVocab, d};
  both("final_norm", {d});
  for (const std::string at : {"layers.0.", "layers.1."}) {
    both(at + "mixer_norm", {d});
    both(at + "ffn_norm", {d});
    for (const char* name : {"q_proj", "k_proj", "v_proj"}) both(at + "mixer." + name, {width, d});
    both(at + "mixer.o_proj", {d, width});
    both(at + "ffn.up_proj", {19, d});
    both(at + "ffn.down_proj", {d, 19});
  }
  EXPECT_EQ(shapes, expected);
}

TEST_P(GptNeoxTest, FlopsCountEveryMultiplyAddTwice) {
  const GptNeoxConfig& config = GetParam().config;
  const auto d = static_cast<double>(config.d_model);
  const auto width = static_cast<double>(config.n_heads * config.channels_per_head());
  const double token = 2 * 2 * (4 * d * width + 2 * d * 19), pair = 2 * 2 * 2 * width;
  const double head = 2 * d * kVocab;
  using Parts = std::vector<std::pair<std::string, double>>;
  EXPECT_EQ(model_->flops(Phase::kTrain, 7, 3).parts,
            (Parts{{"layers", 3 * 3 * (7 * token + 28 * pair)}, {"head", 3 * 3 * 7 * head}}));
  EXPECT_EQ(model_->flops(Phase::kDecode, 7, 3).parts,
            (Parts{{"layers", 3 * (token + 8 * pair)}, {"head", 3 * head}}));
  EXPECT_EQ(model_->state_bytes(7, torch::kBFloat16).total(), 2 * 2 * 7 * 2 * static_cast<int64_t>(width));
  EXPECT_EQ(model_->n_layers(), 2);
}

GptNeoxConfig with_sequential_residual(GptNeoxConfig config) {
  config.parallel_residual = false;
  return config;
}

INSTANTIATE_TEST_SUITE_P(, GptNeoxTest,
                         testing::Values(Case{"NeoX", tiny_neox(), 4},
                                         Case{"NeoXSequential",
                                              with_sequential_residual(tiny_neox()), 4},
                                         Case{"Gpt2", tiny_gpt2(), 0}),
                         [](const auto& test) { return test.param.name; });

// Counts of the published models: Pythia 70M, 160M and 410M.
TEST(GptNeoxSizeTest, PythiasParameters) {
  struct Size {
    int64_t n_layers, d_model, n_heads, count;
  };
  for (const Size& size :
       {Size{6, 512, 8, 70426624}, Size{12, 768, 12, 162322944}, Size{24, 1024, 16, 405334016}}) {
    GptNeoxConfig config;
    config.vocab_size = 50304;
    config.d_model = size.d_model;
    config.ffn_dim = 4 * size.d_model;
    config.n_layers = size.n_layers;
    config.n_heads = size.n_heads;
    EXPECT_EQ(count_parameters(*make_gpt_neox(config)), size.count);
  }
}

TEST(GptNeoxSizeTest, APositionTableLimitsTheRows) {
  EXPECT_EQ(make_gpt_neox(tiny_gpt2())->packing().max_length, kTokens + 2);
  EXPECT_EQ(make_gpt_neox(tiny_neox())->packing().max_length, 0);
}

TEST(GptNeoxSizeTest, AModelNeedsAVocabulary) {
  GptNeoxConfig config = tiny_neox();
  config.vocab_size.reset();
  EXPECT_THROW(make_gpt_neox(config), c10::Error);
}

GptNeoxConfig read_neox(const std::string& yaml) {
  GptNeoxConfig config;
  read_config(parse_yaml(yaml, "a.yaml"), config, "model");
  return config;
}

TEST(GptNeoxConfigTest, ReadsAndWritesEveryKey) {
  auto config = read_neox(
      "{vocab_size: 50257, tie_embeddings: true, max_positions: 1024, d_model: 48, ffn_dim: 100, "
      "norm_eps: 1e-6, n_layers: 3, n_heads: 4, rope: {base: none}, parallel_residual: false, "
      "activation: gelu_tanh}");
  EXPECT_EQ(config.vocab_size, 50257);
  EXPECT_TRUE(config.tie_embeddings);
  EXPECT_EQ(config.max_positions, 1024);
  EXPECT_EQ(config.channels_per_head(), 12);
  EXPECT_FALSE(config.rope.base);
  EXPECT_FALSE(config.parallel_residual);
  EXPECT_EQ(config.activation, "gelu_tanh");
  auto again = GptNeoxConfig();
  read_config(write_config(config), again);
  EXPECT_EQ(to_yaml(write_config(again)), to_yaml(write_config(config)));
  EXPECT_EQ(read_neox("{}").rope.fraction, 0.25);
  EXPECT_EQ(read_neox("{}").channels_per_head(), 64);
  EXPECT_EQ(read_neox("{head_dim: 10, rope: {fraction: 0.4}, n_heads: 7}").channels_per_head(), 10);
}

TEST(GptNeoxConfigTest, Errors) {
  const auto expect = [](const std::string& message, const std::string& yaml) {
    SCOPED_TRACE(yaml);
    expect_user_error(2, "a.yaml:" + message, [&] { read_neox(yaml); });
  };
  expect("1: model.d_model = 50, expected a multiple of n_heads (4)", "{d_model: 50, n_heads: 4}");
  expect("1: model.d_model = 50, expected a multiple of 8", "d_model: 50");
  expect("1: model.n_heads = 7, expected a divisor of 512", "n_heads: 7");
  expect(
      "2: model.n_heads = 4, expected heads of an even number of channels; d_model / n_heads is 3",
      "d_model: 12\nn_heads: 4");
  expect(
      "1: model.d_model = 24, expected heads of an even number of channels; d_model / n_heads is 3",
      "d_model: 24");
  expect("1: model.head_dim = 7, expected an even integer >= 2", "head_dim: 7");
  expect(
      "1: model.rope.fraction = 0.1, expected one that rotates an even number, at least 2, of a "
      "head's 10 channels",
      "{head_dim: 10, rope: {fraction: 0.1}}");
  expect(
      "1: model.rope.fraction = 0.01, expected one that rotates an even number, at least 2, of a "
      "head's 64 channels",
      "{rope: {fraction: 0.01}}");
  expect("1: model.activation = relu, expected one of: gelu, gelu_tanh", "activation: relu");
  expect("1: model.max_positions = 0, expected an integer >= 1", "max_positions: 0");
  expect(
      "1: unknown key model.n_kv_heads; did you mean n_heads? known here: activation, d_model, "
      "ffn_dim, head_dim, max_positions, n_heads, n_layers, norm_eps, parallel_residual, rope, "
      "tie_embeddings, vocab_size",
      "n_kv_heads: 2");
  // Nothing is rotated, so nothing is asked of the fraction.
  read_neox("{head_dim: 10, rope: {base: none, fraction: 0.1}}");
}

}  // namespace
}  // namespace tandem
