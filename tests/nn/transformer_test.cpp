#include "nn/transformer.h"

#include <cmath>
#include <map>
#include <set>

#include "tests/core/helpers.h"
#include "tests/nn/helpers.h"

// What is the Transformer's own; what it shares with all models is in
// tests/cli/language_model_test.cpp.

namespace tandem {
namespace {

TransformerConfig tiny_transformer() {
  TransformerConfig config;
  config.vocab_size = 19;
  config.d_model = 10;
  config.ffn_dim = 13;
  config.n_layers = 2;
  config.n_heads = 4;
  config.n_kv_heads = 2;
  config.head_dim = 6;
  return config;
}

// The whole model in plain arithmetic: one row, token by token, head by head.
Tensor reference_logits(const TransformerConfig& config,
                        const std::map<std::string, Tensor>& weights, const Tensor& tokens) {
  const int64_t n = tokens.size(0), half = config.head_dim / 2,
                group = config.n_heads / *config.n_kv_heads;
  const auto norm = [&](const Tensor& x, const std::string& name) {
    return x * torch::rsqrt(x.square().mean(-1, true) + config.norm_eps) * weights.at(name);
  };
  const auto heads = [&](const Tensor& x, const std::string& name, bool rotate) {
    Tensor y = torch::mm(x, weights.at(name + "_proj.weight").t());
    if (config.qkv_bias) y = y + weights.at(name + "_proj.bias");
    y = y.view({n, -1, config.head_dim});  // [T, H, K]
    if (!rotate) return y;
    if (config.qk_norm_eps) {
      y = y * torch::rsqrt(y.square().mean(-1, true) + *config.qk_norm_eps) *
          weights.at(name + "_norm.weight");
    }
    const Tensor angles =
        torch::arange(n, torch::kFloat64).view({n, 1, 1}) *
        torch::pow(*config.rope.base, -2 * torch::arange(half, torch::kFloat64) / config.head_dim);
    const Tensor a = y.narrow(2, 0, half), b = y.narrow(2, half, half);
    return torch::cat({a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin()},
                      2);
  };
  Tensor x = weights.at("embedding.weight").index_select(0, tokens);
  for (int64_t layer = 0; layer < config.n_layers; ++layer) {
    const std::string at = "layers." + std::to_string(layer) + ".";
    const Tensor y = norm(x, at + "mixer_norm.weight");
    const Tensor q = heads(y, at + "mixer.q", true), k = heads(y, at + "mixer.k", true);
    const Tensor v = heads(y, at + "mixer.v", false);
    Tensors mixed;
    for (int64_t t = 0; t < n; ++t) {
      for (int64_t h = 0; h < config.n_heads; ++h) {
        const Tensor keys = k.select(1, h / group).narrow(0, 0, t + 1),
                     values = v.select(1, h / group).narrow(0, 0, t + 1);
        const Tensor scores =
            torch::mv(keys, q[t][h]) / std::sqrt(static_cast<double>(config.head_dim));
        mixed.push_back(torch::mv(values.t(), torch::softmax(scores, 0)));
      }
    }
    x = x + torch::mm(torch::cat(mixed).view({n, -1}), weights.at(at + "mixer.o_proj.weight").t());
    const Tensor z = norm(x, at + "ffn_norm.weight");
    const Tensor gate = torch::mm(z, weights.at(at + "ffn.gate_proj.weight").t()),
                 up = torch::mm(z, weights.at(at + "ffn.up_proj.weight").t());
    x = x +
        torch::mm(gate * torch::sigmoid(gate) * up, weights.at(at + "ffn.down_proj.weight").t());
  }
  return torch::mm(norm(x, "final_norm.weight"),
                   weights.at(config.tie_embeddings ? "embedding.weight" : "head.weight").t());
}

TEST(TransformerTest, LogitsEqualPlainArithmetic) {
  for (const bool other : {false, true}) {
    TransformerConfig config = tiny_transformer();
    config.tie_embeddings = other;
    config.qkv_bias = other;
    if (other) config.qk_norm_eps = 0.3;  // so large that its place matters
    const auto model = make_transformer(config);
    materialise_random(*model, 3);
    std::map<std::string, Tensor> weights;
    for (const auto& item : model->named_parameters())
      weights.emplace(item.key(), item.value().detach());
    const Tensor tokens = torch::randint(19, {1, 13}, seeded(4), torch::kInt64);
    StateShape shape;
    shape.dtype = torch::kFloat64;
    const auto state = model->make_state(shape);
    expect_close(model->extend(tokens, {}, *state, Want::kAll)[0],
                 reference_logits(config, weights, tokens[0]));
  }
}

TEST(TransformerTest, NamesShapesAndInitialValues) {
  const TransformerConfig config = tiny_transformer();
  std::map<std::string, std::vector<int64_t>> shapes;
  for (const auto& info : parameters_info(*make_transformer(config))) {
    shapes[info.name] = info.global_shape;
    EXPECT_EQ(info.decay, info.global_shape.size() > 1) << info.name;
    if (info.name == "embedding.weight") {
      EXPECT_EQ(info.init.kind, Init::Kind::kNormal);
      EXPECT_EQ(info.init.value, 0.02);
    } else if (info.global_shape.size() > 1) {
      EXPECT_EQ(info.init.kind, Init::Kind::kUniform) << info.name;
      EXPECT_DOUBLE_EQ(info.init.value, 1 / std::sqrt(static_cast<double>(info.global_shape[1])))
          << info.name;
    }
  }
  const std::map<std::string, std::vector<int64_t>> expected = {
      {"embedding.weight", {19, 10}},
      {"layers.0.mixer_norm.weight", {10}},
      {"layers.1.mixer_norm.weight", {10}},
      {"layers.0.mixer.q_proj.weight", {24, 10}},
      {"layers.1.mixer.q_proj.weight", {24, 10}},
      {"layers.0.mixer.k_proj.weight", {12, 10}},
      {"layers.1.mixer.k_proj.weight", {12, 10}},
      {"layers.0.mixer.v_proj.weight", {12, 10}},
      {"layers.1.mixer.v_proj.weight", {12, 10}},
      {"layers.0.mixer.o_proj.weight", {10, 24}},
      {"layers.1.mixer.o_proj.weight", {10, 24}},
      {"layers.0.ffn_norm.weight", {10}},
      {"layers.1.ffn_norm.weight", {10}},
      {"layers.0.ffn.gate_proj.weight", {13, 10}},
      {"layers.1.ffn.gate_proj.weight", {13, 10}},
      {"layers.0.ffn.up_proj.weight", {13, 10}},
      {"layers.1.ffn.up_proj.weight", {13, 10}},
      {"layers.0.ffn.down_proj.weight", {10, 13}},
      {"layers.1.ffn.down_proj.weight", {10, 13}},
      {"final_norm.weight", {10}},
      {"head.weight", {19, 10}},
  };
  EXPECT_EQ(shapes, expected);
}

TEST(TransformerTest, NormsOfHeadsAndBiasesAreFurtherParameters) {
  TransformerConfig config = tiny_transformer();
  std::map<std::string, ParameterInfo> plain, added;
  for (const auto& info : parameters_info(*make_transformer(config)))
    plain.emplace(info.name, info);
  config.qkv_bias = true;
  config.qk_norm_eps = 1e-6;
  for (const auto& info : parameters_info(*make_transformer(config))) {
    if (!plain.contains(info.name)) added.emplace(info.name, info);
  }
  std::map<std::string, std::vector<int64_t>> shapes, expected;
  for (const auto& [name, info] : added) {
    shapes[name] = info.global_shape;
    EXPECT_FALSE(info.decay) << name;
    EXPECT_EQ(info.init.kind, Init::Kind::kConstant) << name;
    EXPECT_EQ(info.init.value, name.ends_with("norm.weight") ? 1 : 0) << name;
  }
  for (const std::string layer : {"layers.0.mixer.", "layers.1.mixer."}) {
    expected[layer + "q_proj.bias"] = {24};
    expected[layer + "k_proj.bias"] = expected[layer + "v_proj.bias"] = {12};
    expected[layer + "q_norm.weight"] = expected[layer + "k_norm.weight"] = {6};
  }
  EXPECT_EQ(shapes, expected);
}

TEST(TransformerTest, TheStateNamesEachLayersKeysAndValues) {
  const auto model = make_transformer(tiny_transformer());
  std::set<std::string> names;
  for (const auto& [name, tensor] : model->make_state({})->tensors()) names.insert(name);
  EXPECT_EQ(names, (std::set<std::string>{"layers.0.mixer.keys", "layers.0.mixer.values",
                                          "layers.1.mixer.keys", "layers.1.mixer.values"}));
}

TEST(TransformerTest, FlopsCountEveryMultiplyAddTwice) {
  const TransformerConfig config = tiny_transformer();
  const auto model = make_transformer(config);
  // a token: q and o 10 x 24, k and v 10 x 12, three of 10 x 13; two products of 24 channels with
  // each of its keys; head 10 x 19
  const double matrices = 2 * (2 * 240 + 2 * 120 + 3 * 130), pair = 2 * 2 * 24;
  const auto parts = [&](Phase phase, int64_t length, int64_t batch) {
    return model->flops(phase, length, batch).parts;
  };
  using Parts = std::vector<std::pair<std::string, double>>;
  EXPECT_EQ(parts(Phase::kTrain, 7, 3), (Parts{{"layers", 3 * 3 * 2 * (7 * matrices + 28 * pair)},
                                               {"head", 3 * 3 * 7 * 2 * 190.0}}));
  EXPECT_EQ(parts(Phase::kPrefill, 7, 3),
            (Parts{{"layers", 3 * 2 * (7 * matrices + 28 * pair)}, {"head", 3 * 2 * 190.0}}));
  EXPECT_EQ(parts(Phase::kDecode, 7, 3),
            (Parts{{"layers", 3 * 2 * (matrices + 8 * pair)}, {"head", 3 * 2 * 190.0}}));
}

TEST(TransformerTest, AnEvenNumberOfChannelsIsRotated) {
  const auto read = [](const std::string& yaml) {
    TransformerConfig config;
    read_config(parse_yaml(yaml, "a.yaml"), config);
  };
  read("{d_model: 10, head_dim: 6, rope: {fraction: 0.4}}");
  read("{d_model: 10, head_dim: 6, rope: {base: none, fraction: 0}}");
  expect_user_error(2,
                    "a.yaml:2: rope.fraction = 0.5, expected one that rotates an even number, at "
                    "least 2, of a head's 6 channels",
                    [&] { read("head_dim: 6\nrope: {fraction: 0.5}"); });
  expect_user_error(2,
                    "a.yaml:1: rope.fraction = 0, expected one that rotates an even number, at "
                    "least 2, of a head's 64 channels",
                    [&] { read("rope: {fraction: 0}"); });
  expect_user_error(2, "a.yaml:1: rope.fraction = 1.5, expected a number from 0 to 1",
                    [&] { read("rope: {fraction: 1.5}"); });
}

TEST(TransformerTest, AModelNeedsAVocabulary) {
  TransformerConfig config = tiny_transformer();
  config.vocab_size.reset();
  EXPECT_THROW(make_transformer(config), c10::Error);
}

}  // namespace
}  // namespace tandem
