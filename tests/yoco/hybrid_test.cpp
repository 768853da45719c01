#include "yoco/hybrid.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "nn/full_attention.h"
#include "nn/gated_retention.h"
#include "nn/multi_scale_retention.h"
#include "nn/transformer.h"
#include "tests/nn/helpers.h"

// What is the hybrid family's own; what it shares with all models is in
// tests/cli/language_model_test.cpp.

namespace tandem {
namespace {

constexpr int64_t kVocab = 19, kD = 12, kF = 13;

Choice retention_choice() {
  auto choice = mixer_choice("retention");
  choice.as<MultiScaleRetentionConfig>() = {.n_heads = 3, .head_dim = 4};
  return choice;
}
Choice gated_choice() {
  auto choice = mixer_choice("gated_retention");
  choice.as<GatedRetentionConfig>() = {.n_heads = 3, .head_dim = 4};
  return choice;
}
Choice attention_choice() {
  auto choice = mixer_choice("full_attention");
  choice.as<FullAttentionConfig>() = {.n_heads = 4, .n_kv_heads = 2, .head_dim = 6};
  return choice;
}

HybridConfig config_of(int64_t n_layers, const std::vector<Choice>& mixers) {
  HybridConfig config;
  config.vocab_size = kVocab;
  config.d_model = kD;
  config.ffn_dim = kF;
  config.n_layers = n_layers;
  config.mixers = mixers;
  return config;
}

TEST(HybridTest, ParametersFollowTheFormula) {
  // d^2, f and h as in yoco_test.cpp; here H K = d. Two norms a layer and a last one.
  const int64_t ffn = 3 * kD * kF + 2 * kD, retention = 5 * kD * kD, gated = retention + kD * 3,
                attention = 2 * kD * 24 + 2 * kD * 12;
  const auto count = [](const HybridConfig& config) {
    return count_parameters(*make_hybrid(config));
  };
  EXPECT_EQ(count(config_of(3, {retention_choice()})),
            3 * (retention + ffn) + kD + 2 * kVocab * kD);
  EXPECT_EQ(count(config_of(5, {gated_choice(), attention_choice()})),
            3 * (gated + ffn) + 2 * (attention + ffn) + kD + 2 * kVocab * kD);
  auto tied = config_of(2, {gated_choice()});
  tied.tie_embeddings = true;
  EXPECT_EQ(count(tied), 2 * (gated + ffn) + kD + kVocab * kD);
}

TEST(HybridTest, LayersRepeatThePattern) {
  const auto model =
      make_hybrid(config_of(5, {gated_choice(), attention_choice(), retention_choice()}));
  std::vector<std::string> names;
  for (const auto& [name, tensor] : model->make_state({})->tensors()) names.push_back(name);
  EXPECT_EQ(names, (std::vector<std::string>{"layers.0.mixer.state", "layers.1.mixer.keys",
                                             "layers.1.mixer.values", "layers.2.mixer.state",
                                             "layers.3.mixer.state", "layers.4.mixer.keys",
                                             "layers.4.mixer.values"}));
  const auto parameters = model->named_parameters();
  EXPECT_TRUE(parameters.contains("layers.3.mixer.gate_proj.weight"));  // the first mixer again
  EXPECT_FALSE(parameters.contains("layers.2.mixer.gate_proj.weight"));
  EXPECT_EQ(model->n_layers(), 5);
}

// Under the Transformer's conventions a hybrid of attention alone is the Transformer.
TEST(HybridTest, AttentionInEveryLayerIsTheTransformer) {
  auto config = config_of(2, {attention_choice()});
  config.rope.pairs = "halves";
  config.rope.exponents = "standard";
  config.embedding_scale = false;
  TransformerConfig transformer;
  transformer.vocab_size = kVocab;
  transformer.d_model = kD;
  transformer.ffn_dim = kF;
  transformer.n_layers = 2;
  transformer.n_heads = 4;
  transformer.n_kv_heads = 2;
  transformer.head_dim = 6;
  const auto logits_of = [](const std::shared_ptr<LanguageModel>& model) {
    materialise_random(*model, 71);
    StateShape shape;
    shape.dtype = torch::kFloat64;
    const auto state = model->make_state(shape);
    return model->extend(torch::randint(kVocab, {1, 13}, seeded(72), torch::kInt64), {}, *state,
                         Want::kAll);
  };
  const auto hybrid = make_hybrid(config), reference = make_transformer(transformer);
  EXPECT_EQ(hybrid->named_parameters().keys(), reference->named_parameters().keys());
  const Tensor expected = logits_of(reference);
  expect_close(logits_of(hybrid), expected, 0);
  EXPECT_FALSE(
      torch::allclose(logits_of(make_hybrid(config_of(2, {attention_choice()}))), expected));
}

TEST(HybridTest, ConventionsAreYocos) {
  const HybridConfig config = config_of(1, {gated_choice()});
  EXPECT_TRUE(config.embedding_scale);
  EXPECT_EQ(config.rope.pairs, "interleaved");
  EXPECT_EQ(config.rope.exponents, "inclusive");
  std::map<std::string, Init> inits;
  for (const auto& info : parameters_info(*make_hybrid(config))) inits[info.name] = info.init;
  EXPECT_EQ(inits.at("embedding.weight").kind, Init::Kind::kNormal);
  EXPECT_NEAR(inits.at("embedding.weight").value, 1 / std::sqrt(12.0), 1e-12);
  EXPECT_EQ(inits.at("head.weight").kind, Init::Kind::kUniform);
  EXPECT_NEAR(inits.at("head.weight").value, 1 / std::sqrt(12.0), 1e-12);
}

TEST(HybridTest, OnlyAttentionGrows) {
  const auto retnet = make_hybrid(config_of(3, {retention_choice()})),
             hybrid = make_hybrid(config_of(3, {retention_choice(), attention_choice()}));
  const int64_t state = 3 * 4 * 4 * 4;  // float32 whatever the activations
  EXPECT_EQ(retnet->state_bytes(10, torch::kBFloat16).total(), 3 * state);
  EXPECT_EQ(retnet->state_bytes(5000, torch::kBFloat16).total(), 3 * state);
  EXPECT_EQ(hybrid->state_bytes(5000, torch::kBFloat16).total(), 2 * state + 2 * 5000 * 2 * 6 * 2);
  std::vector<std::string> parts;
  for (const auto& [name, flops] : hybrid->flops(Phase::kTrain, 10, 1).parts) parts.push_back(name);
  EXPECT_EQ(parts, (std::vector<std::string>{"layers", "head"}));
}

TEST(HybridTest, AModelNeedsAVocabularyAndMixers) {
  auto config = config_of(1, {gated_choice()});
  config.vocab_size.reset();
  EXPECT_THROW(make_hybrid(config), c10::Error);
  try {
    read_config(parse_yaml("mixers: []", "a.yaml"), config);
    FAIL() << "nothing was thrown";
  } catch (const UserError& error) {
    EXPECT_STREQ(error.what(), "a.yaml:1: mixers = [], expected at least one mixer");
  }
}

}  // namespace
}  // namespace tandem
