#include "yoco/yoco.h"

#include <cmath>
#include <map>

#include "nn/gated_retention.h"
#include "nn/layer_runner.h"
#include "nn/sliding_window_attention.h"
#include "tests/core/helpers.h"
#include "tests/nn/helpers.h"

// What is YOCO's own; what it shares with all models is in tests/cli/language_model_test.cpp.

namespace tandem {
namespace {

YocoConfig tiny_config() {
  YocoConfig config;
  config.vocab_size = 19;
  config.d_model = 10;
  config.ffn_dim = 13;
  config.self_decoder.n_layers = 3;
  auto& retention = config.self_decoder.mixers[0].as<GatedRetentionConfig>();
  retention.n_heads = 3;
  retention.head_dim = 4;
  config.cross_decoder.n_layers = 2;
  config.cross_decoder.n_heads = 4;
  config.cross_decoder.n_kv_heads = 2;
  config.cross_decoder.head_dim = 6;
  return config;
}

YocoConfig window_config() {
  YocoConfig config = tiny_config();
  config.self_decoder.mixers = {mixer_choice("sliding_window")};
  auto& window = config.self_decoder.mixers[0].as<SlidingWindowConfig>();
  window.n_heads = 3;
  window.head_dim = 4;
  window.window = 5;
  return config;
}

std::map<std::string, ParameterInfo> infos_of(const YocoConfig& config) {
  std::map<std::string, ParameterInfo> infos;
  for (const auto& info : parameters_info(*make_yoco(config))) infos.emplace(info.name, info);
  return infos;
}

// YOCO's own decoder layers: d, f, h heads as in the fact that a gRet layer has 5 d^2 + d h + 3 d f matrix elements, a window layer 4 d^2 + 3 d f, a cross
// layer 2 d^2 + 3 d f, and the shared keys and values 2 d g k once; plus two norms a layer, one for the shared keys and values and a last one.
TEST(YocoTest, ParametersFollowTheFormula) {
  for (const bool window : {false, true}) {
    YocoConfig config;
    const int64_t d = 24, f = 40, h = 3, g = 2, k = 6, vocab = 31, n_self = 3, n_cross = 2;
    config.vocab_size = vocab;
    config.d_model = d;
    config.ffn_dim = f;
    config.self_decoder.n_layers = n_self;
    auto& cross = config.cross_decoder;
    cross.n_layers = n_cross;
    cross.n_heads = d / k;
    cross.n_kv_heads = g;
    cross.head_dim = k;
    if (window) {
      config.self_decoder.mixers = {mixer_choice("sliding_window")};
      auto& mixer = config.self_decoder.mixers[0].as<SlidingWindowConfig>();
      mixer.n_heads = h;
      mixer.head_dim = d / h;
    } else {
      auto& mixer = config.self_decoder.mixers[0].as<GatedRetentionConfig>();
      mixer.n_heads = h;
      mixer.head_dim = d / h;
    }
    const int64_t self_layer = window ? 4 * d * d + 3 * d * f : 5 * d * d + d * h + 3 * d * f;
    const int64_t cross_layer = 2 * d * d + 3 * d * f;
    const int64_t core = n_self * self_layer + n_cross * cross_layer + 2 * d * g * k + (2 * (n_self + n_cross) + 2) * d;
    EXPECT_EQ(count_parameters(*make_yoco(config)), core + 2 * vocab * d);
    config.tie_embeddings = true;
    EXPECT_EQ(count_parameters(*make_yoco(config)), core + vocab * d);
  }
}

TEST(YocoTest, NamesAndShapes) {
  std::map<std::string, std::vector<int64_t>> shapes;
  for (const auto& [name, info] : infos_of(tiny_config())) {
    if (name.find(".0.") != std::string::npos || name.find("layers") == std::string::npos) shapes[name] = info.global_shape;
  }
  const std::map<std::string, std::vector<int64_t>> expected = {
      {"embedding.weight", {19, 10}},
      {"self_decoder.layers.0.mixer_norm.weight", {10}},
      {"self_decoder.layers.0.mixer.q_proj.weight", {12, 10}},
      {"self_decoder.layers.0.mixer.k_proj.weight", {12, 10}},
      {"self_decoder.layers.0.mixer.v_proj.weight", {12, 10}},
      {"self_decoder.layers.0.mixer.g_proj.weight", {12, 10}},
      {"self_decoder.layers.0.mixer.gate_proj.weight", {3, 10}},
      {"self_decoder.layers.0.mixer.o_proj.weight", {10, 12}},
      {"self_decoder.layers.0.ffn_norm.weight", {10}},
      {"self_decoder.layers.0.ffn.gate_proj.weight", {13, 10}},
      {"self_decoder.layers.0.ffn.up_proj.weight", {13, 10}},
      {"self_decoder.layers.0.ffn.down_proj.weight", {10, 13}},
      {"shared_kv.norm.weight", {10}},
      {"shared_kv.k_proj.weight", {12, 10}},
      {"shared_kv.v_proj.weight", {12, 10}},
      {"cross_decoder.layers.0.mixer_norm.weight", {10}},
      {"cross_decoder.layers.0.mixer.q_proj.weight", {24, 10}},
      {"cross_decoder.layers.0.mixer.o_proj.weight", {10, 24}},
      {"cross_decoder.layers.0.ffn_norm.weight", {10}},
      {"cross_decoder.layers.0.ffn.gate_proj.weight", {13, 10}},
      {"cross_decoder.layers.0.ffn.up_proj.weight", {13, 10}},
      {"cross_decoder.layers.0.ffn.down_proj.weight", {10, 13}},
      {"final_norm.weight", {10}},
      {"head.weight", {19, 10}},
  };
  EXPECT_EQ(shapes, expected);
}

TEST(YocoTest, NormsOfQueriesAndBiasesAreFurtherParameters) {
  YocoConfig config = tiny_config();
  const auto plain = infos_of(config);
  config.cross_decoder.qkv_bias = true;
  config.cross_decoder.q_norm_eps = 1e-5;
  std::map<std::string, std::vector<int64_t>> added;
  for (const auto& [name, info] : infos_of(config)) {
    if (plain.contains(name)) continue;
    added[name] = info.global_shape;
    EXPECT_FALSE(info.decay) << name;
    EXPECT_EQ(info.init.value, name.ends_with("norm.weight") ? 1 : 0) << name;
  }
  const std::map<std::string, std::vector<int64_t>> expected = {
      {"shared_kv.k_proj.bias", {12}},
      {"shared_kv.v_proj.bias", {12}},
      {"cross_decoder.layers.0.mixer.q_proj.bias", {24}},
      {"cross_decoder.layers.1.mixer.q_proj.bias", {24}},
      {"cross_decoder.layers.0.mixer.q_norm.weight", {6}},
      {"cross_decoder.layers.1.mixer.q_norm.weight", {6}},
  };
  EXPECT_EQ(added, expected);
}

// Slowly, head by head: q is normalised after its bias and before it is rotated.
TEST(YocoTest, QueriesAreNormalisedBetweenBiasAndRotation) {
  CrossDecoderConfig config;
  config.n_heads = 4;
  config.n_kv_heads = 2;
  config.head_dim = 6;
  config.qkv_bias = true;
  config.q_norm_eps = 0.3;  // so large that its place matters
  const RopeConfig rope{.pairs = "interleaved"};
  CrossAttention attention(config, 10, rope);
  materialise_random(attention, 21);
  const auto draw = [](at::IntArrayRef shape, uint64_t seed) { return torch::randn(shape, seeded(seed), torch::kFloat64); };
  const Tensor x = draw({2, 7, 10}, 22), keys = draw({2, 7, 2, 6}, 23), values = draw({2, 7, 2, 6}, 24);
  const auto table = make_rope_table(rope, 6, torch::arange(7).repeat({2, 1}), torch::kFloat64);
  const auto p = attention.named_parameters();
  const Tensor q = (x.matmul(p["q_proj.weight"].t()) + p["q_proj.bias"]).view({2, 7, 4, 6});
  const Tensor rotated = apply_rope(q * torch::rsqrt(q.square().mean(-1, true) + 0.3) * p["q_norm.weight"], table, rope);
  const Tensor scores = torch::einsum("bihd,bjhd->bhij", {rotated, keys.repeat_interleave(2, 2)}) / std::sqrt(6.0);
  const Tensor later = torch::ones({7, 7}, torch::kBool).triu(1);
  const Tensor mixed = torch::einsum("bhij,bjhd->bihd", {scores.masked_fill(later, -INFINITY).softmax(-1), values.repeat_interleave(2, 2)});
  expect_close(attention.forward(x, keys, values, table, {}), mixed.flatten(2).matmul(p["o_proj.weight"].t()));
  Tensors inputs = {x, keys, values};
  for (const auto& parameter : attention.parameters()) inputs.push_back(parameter);
  expect_gradients([&](const Tensors& in) -> Tensors { return {attention.forward(in[0], in[1], in[2], table, {})}; }, inputs);
}

TEST(YocoTest, NormsOfHeadsAreSwitchedOffByAWord) {
  YocoConfig config;
  read_config(parse_yaml("cross_decoder: {q_norm_eps: 1e-6, qkv_bias: true}", "a.yaml"), config);
  EXPECT_EQ(config.cross_decoder.q_norm_eps, 1e-6);
  EXPECT_TRUE(config.cross_decoder.qkv_bias);
  read_config(parse_yaml("cross_decoder: {q_norm_eps: none}", "a.yaml"), config);
  EXPECT_FALSE(config.cross_decoder.q_norm_eps);
  expect_user_error(kExitUsage, "a.yaml:1: cross_decoder.q_norm_eps = 0, expected a number > 0",
                    [&] { read_config(parse_yaml("cross_decoder: {q_norm_eps: 0}", "a.yaml"), config); });
}

// The official code's: retention Xavier-uniform with gain 2^-2.5 and 2^-1 at its output, embeddings N(0, 1 / sqrt d), all else U(+-1 / sqrt(inputs)).
TEST(YocoTest, InitialValues) {
  const auto infos = infos_of(tiny_config());
  const auto expect_bound = [&](const std::string& name, double bound) {
    EXPECT_EQ(infos.at(name).init.kind, Init::Kind::kUniform) << name;
    EXPECT_NEAR(infos.at(name).init.value, bound, 1e-12) << name;
  };
  EXPECT_EQ(infos.at("embedding.weight").init.kind, Init::Kind::kNormal);
  EXPECT_NEAR(infos.at("embedding.weight").init.value, 1 / std::sqrt(10.0), 1e-12);
  for (const char* name : {"q_proj", "k_proj", "v_proj", "g_proj"}) {
    expect_bound("self_decoder.layers.1.mixer." + std::string(name) + ".weight", std::pow(2.0, -2.5) * std::sqrt(6.0 / (10 + 12)));
  }
  expect_bound("self_decoder.layers.1.mixer.gate_proj.weight", std::pow(2.0, -2.5) * std::sqrt(6.0 / (10 + 3)));
  expect_bound("self_decoder.layers.1.mixer.o_proj.weight", 0.5 * std::sqrt(6.0 / (12 + 10)));
  expect_bound("shared_kv.k_proj.weight", 1 / std::sqrt(10.0));
  expect_bound("shared_kv.v_proj.weight", 1 / std::sqrt(10.0));
  expect_bound("cross_decoder.layers.1.mixer.q_proj.weight", 1 / std::sqrt(10.0));
  expect_bound("cross_decoder.layers.1.mixer.o_proj.weight", 1 / std::sqrt(24.0));
  expect_bound("cross_decoder.layers.1.ffn.down_proj.weight", 1 / std::sqrt(13.0));
  expect_bound("head.weight", 1 / std::sqrt(10.0));
}

// Writes down how many tokens each layer was run on.
struct Recorder : LayerRunner {
  std::vector<int64_t> n_tokens;
  Tensors run(torch::nn::Module&, const Tensors& inputs, const LayerFunction& f) override {
    n_tokens.push_back(inputs[0].size(1));
    return f(inputs);
  }
};

// YOCO, sec. 3.3: a prompt's inner piece never enters the cross-decoder, and its end enters with one position.
TEST(YocoTest, PrefillLeavesBeforeTheCrossDecoder) {
  const auto model = make_yoco(tiny_config());
  materialise_random(*model, 5);
  Recorder recorder;
  StateShape shape;
  shape.batch = 2;
  shape.dtype = torch::kFloat64;
  shape.runner = &recorder;
  const auto state = model->make_state(shape);
  const Tensor tokens = torch::randint(19, {2, 11}, seeded(6), torch::kInt64);
  using Tokens = std::vector<int64_t>;  // three self layers, shared keys and values, two cross layers
  const auto expect_tokens = [&](Want want, const Tensor& lengths, const Tokens& expected) {
    recorder.n_tokens.clear();
    model->extend(tokens, lengths, *state, want);
    EXPECT_EQ(recorder.n_tokens, expected);
  };
  expect_tokens(Want::kNothing, {}, {11, 11, 11, 11});
  expect_tokens(Want::kLast, {}, {11, 11, 11, 11, 1, 1});
  expect_tokens(Want::kLast, torch::tensor({3, 11}, torch::kInt64), {11, 11, 11, 11, 1, 1});
  expect_tokens(Want::kAll, {}, {11, 11, 11, 11, 11, 11});
}

TEST(YocoTest, OnlyTheSharedCacheGrows) {
  for (const auto& config : {tiny_config(), window_config()}) {
    const auto model = make_yoco(config);
    materialise_random(*model, 7);
    StateShape shape;
    shape.dtype = torch::kFloat64;
    const auto state = model->make_state(shape);
    const auto bytes = [&] {
      std::map<std::string, int64_t> sums;
      for (const auto& [name, tensor] : state->tensors()) sums[name.substr(0, name.find('.'))] += tensor.numel() * tensor.element_size();
      return sums;
    };
    const Tensor tokens = torch::randint(19, {1, 17}, seeded(8), torch::kInt64);
    model->extend(tokens, {}, *state, Want::kNothing);
    const auto early = bytes();
    for (int i = 0; i < 3; ++i) model->extend(tokens, {}, *state, Want::kNothing);
    EXPECT_EQ(bytes().at("self_decoder"), early.at("self_decoder"));
    EXPECT_EQ(bytes().at("shared_kv"), 4 * early.at("shared_kv"));
    EXPECT_EQ(early.at("shared_kv"), 2 * 2 * 6 * 17 * 8);  // keys and values of 2 heads of 6, 8 bytes each
  }
}

TEST(YocoTest, TheStateIsNamed) {
  const auto names_of = [](const YocoConfig& config) {
    std::vector<std::string> names;
    const auto model = make_yoco(config);
    for (const auto& [name, tensor] : model->make_state({})->tensors()) names.push_back(name);
    return names;
  };
  EXPECT_EQ(names_of(tiny_config()),
            (std::vector<std::string>{"self_decoder.layers.0.mixer.state", "self_decoder.layers.1.mixer.state", "self_decoder.layers.2.mixer.state",
                                      "shared_kv.keys", "shared_kv.values"}));
  YocoConfig mixed = tiny_config();
  mixed.self_decoder.mixers.push_back(window_config().self_decoder.mixers[0]);  // repeats: retention, window, retention
  EXPECT_EQ(names_of(mixed),
            (std::vector<std::string>{"self_decoder.layers.0.mixer.state", "self_decoder.layers.1.mixer.keys", "self_decoder.layers.1.mixer.values",
                                      "self_decoder.layers.2.mixer.state", "shared_kv.keys", "shared_kv.values"}));
}

TEST(YocoTest, FlopsCountTheEarlyExitAndTheSharedCacheOnce) {
  const YocoConfig config = window_config();
  const auto model = make_yoco(config);
  const auto parts = [&](Phase phase, int64_t length, int64_t batch) {
    std::map<std::string, double> named;
    for (const auto& [name, flops] : model->flops(phase, length, batch).parts) named[name] = flops;
    return named;
  };
  // a cross layer: q and o 10 x 24, three of 10 x 13; two products of 24 channels with each key. Shared: two of 10 x 12. Head: 10 x 19.
  const double cross = 2 * 2 * (2 * 240 + 3 * 130), pair = 2 * 2 * 2 * 24, shared = 2 * 2 * 120, head = 2 * 190;
  const auto train = parts(Phase::kTrain, 9, 2), prefill = parts(Phase::kPrefill, 9, 2), decode = parts(Phase::kDecode, 9, 2);
  EXPECT_EQ(train.at("shared_kv"), 3 * 2 * 9 * shared);
  EXPECT_EQ(train.at("cross_decoder"), 3 * 2 * (9 * cross + 45 * pair));
  EXPECT_EQ(prefill.at("shared_kv"), 2 * 9 * shared);
  EXPECT_EQ(prefill.at("cross_decoder"), 2 * (cross + 9 * pair));
  EXPECT_EQ(prefill.at("head"), 2 * head);
  EXPECT_EQ(decode.at("shared_kv"), 2 * shared);
  EXPECT_EQ(decode.at("cross_decoder"), 2 * (cross + 10 * pair));
  EXPECT_EQ(prefill.at("self_decoder") * 3, train.at("self_decoder"));
}

// rope of one decoder must not move the other's
TEST(YocoTest, EachDecoderMayHaveItsOwnRope) {
  const Tensor tokens = torch::randint(19, {1, 13}, seeded(9), torch::kInt64);
  const auto state_of = [&](const YocoConfig& config) {
    const auto model = make_yoco(config);
    materialise_random(*model, 10);
    StateShape shape;
    shape.dtype = torch::kFloat64;
    auto state = model->make_state(shape);
    model->extend(tokens, {}, *state, Want::kLast);
    std::map<std::string, Tensor> named;
    for (const auto& [name, tensor] : state->tensors()) named[name] = tensor;
    named["logits"] = state->next_logits;
    return named;
  };
  YocoConfig config = tiny_config();
  const auto plain = state_of(config);
  config.cross_decoder.rope.emplace();
  config.cross_decoder.rope->base = 50;
  const auto other_cross = state_of(config);
  expect_close(other_cross.at("self_decoder.layers.2.mixer.state"), plain.at("self_decoder.layers.2.mixer.state"), 0);
  expect_close(other_cross.at("shared_kv.values"), plain.at("shared_kv.values"), 0);
  EXPECT_FALSE(torch::allclose(other_cross.at("shared_kv.keys"), plain.at("shared_kv.keys")));
  EXPECT_FALSE(torch::allclose(other_cross.at("logits"), plain.at("logits")));
  config.rope.base = 50;
  config.cross_decoder.rope->base = 10000;
  EXPECT_FALSE(torch::allclose(state_of(config).at("self_decoder.layers.2.mixer.state"), plain.at("self_decoder.layers.2.mixer.state")));
}

TEST(YocoTest, WhatADecodersRopeLeavesOutIsTheModels) {
  const auto read = [](const std::string& text) {
    YocoConfig config;
    read_config(parse_yaml(text, "test.yaml"), config);
    return config;
  };
  const auto config = read("rope: {pairs: halves, exponents: standard}\nself_decoder: {rope: {base: none}}\ncross_decoder: {rope: {base: 640000}}\n");
  const RopeConfig cross = resolved_rope(config.cross_decoder.rope, config.rope), self = resolved_rope(config.self_decoder.rope, config.rope);
  EXPECT_EQ(cross.base, 640000);
  EXPECT_EQ(cross.pairs, "halves");
  EXPECT_EQ(cross.exponents, "standard");
  EXPECT_EQ(self.base, std::nullopt);
  EXPECT_EQ(self.pairs, "halves");
  const auto other = read("rope: {base: 50}\ncross_decoder: {rope: {pairs: halves}}\n");
  const RopeConfig mixed = resolved_rope(other.cross_decoder.rope, other.rope);
  EXPECT_EQ(mixed.base, 50);
  EXPECT_EQ(mixed.pairs, "halves");
  EXPECT_EQ(mixed.exponents, "inclusive");

  YocoConfig written = config;  // what was left out stays open to the model's
  const ConfigNode node = write_config(written);
  YocoConfig again;
  read_config(node, again);
  again.rope.pairs = "interleaved";
  EXPECT_EQ(resolved_rope(again.cross_decoder.rope, again.rope).pairs, "interleaved");
  EXPECT_EQ(resolved_rope(again.cross_decoder.rope, again.rope).base, 640000);
  EXPECT_EQ(resolved_rope(again.self_decoder.rope, again.rope).base, std::nullopt);
}

}  // namespace
}  // namespace tandem
