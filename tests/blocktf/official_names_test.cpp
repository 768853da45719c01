#include "blocktf/official_names.h"

#include <numeric>

#include "cli/build_model.h"
#include "tests/cli/tiny_models.h"
#include "tests/core/helpers.h"
#include "tests/golden.h"
#include "tests/nn/helpers.h"

namespace tandem {
namespace {

const std::vector<std::string> kCases = {
    "block_length_1", "cls_cross_attention", "cls_summation",  "gpt_neox", "lookup_prefix2",
    "megabyte",       "projection_prefix2",  "roberta_prefix1"};

template <typename Use>
auto with_config(const Choice& model, const Use& use) {
  return model.name == "gpt_neox" ? use(model.as<GptNeoxConfig>())
                                  : use(model.as<BlockTransformerConfig>());
}

Choice golden_choice(const std::string& name) {
  const std::string path = golden_path("block_transformer/" + name + "/config.yaml");
  return read_model_section(parse_yaml_file(path), path);
}

class OfficialNamesTest : public testing::TestWithParam<std::string> {};

TEST_P(OfficialNamesTest, EveryTensorOfAFileIsKnownWithItsShape) {
  auto file = read_tensors(golden_path("block_transformer/" + GetParam() + "/model.safetensors"));
  for (const auto& tensor : with_config(golden_choice(GetParam()), [](const auto& config) {
         return official_tensors(config);
       })) {
    SCOPED_TRACE(tensor.name);
    ASSERT_TRUE(file.contains(tensor.name));
    EXPECT_EQ(file.at(tensor.name).sizes(), tensor.shape);
    EXPECT_EQ(tensor.dead, tensor.name == "block_decoder.gpt_neox.embed_in.weight");
    file.erase(tensor.name);
  }
  EXPECT_TRUE(file.empty()) << file.begin()->first;
}

TEST_P(OfficialNamesTest, OursAreTheParametersOfTheModelAndTheWayBackIsExact) {
  const auto official =
      read_tensors(golden_path("block_transformer/" + GetParam() + "/model.safetensors"));
  const Choice model = golden_choice(GetParam());
  const auto ours =
      with_config(model, [&](const auto& config) { return from_official(config, official); });
  const auto parameters = parameters_info(*model_factory().build(model));
  EXPECT_EQ(ours.size(), parameters.size());
  for (const auto& info : parameters) {
    ASSERT_TRUE(ours.contains(info.name)) << info.name;
    EXPECT_EQ(ours.at(info.name).sizes(), info.global_shape) << info.name;
  }
  const auto back =
      with_config(model, [&](const auto& config) { return to_official(config, ours); });
  EXPECT_EQ(back.size() + official.contains("block_decoder.gpt_neox.embed_in.weight"),
            official.size());
  for (const auto& [name, tensor] : back)
    EXPECT_TRUE(torch::equal(tensor, official.at(name))) << name;
}

INSTANTIATE_TEST_SUITE_P(Cases, OfficialNamesTest, testing::ValuesIn(kCases),
                         [](const auto& name) { return name.param; });

// Element by element, as a second source beside the code.
TEST(OfficialLayoutTest, FusedRowsConvolutionsAndExpansions) {
  const auto official =
      read_tensors(golden_path("block_transformer/projection_prefix2/model.safetensors"));
  const auto ours =
      from_official(golden_choice("projection_prefix2").as<BlockTransformerConfig>(), official);
  constexpr int64_t kHeads = 2, kChannels = 16;  // of the block decoder
  const std::string layer = "block_decoder.layers.1.mixer.",
                    fused = "block_decoder.gpt_neox.layers.1.attention.query_key_value.";
  for (const std::string kind : {"weight", "bias"}) {
    for (int64_t head = 0; head < kHeads; ++head) {
      for (int64_t i = 0; i < 3; ++i) {
        const Tensor& own = ours.at(layer + "qkv"[i] + "_proj." + kind);
        for (int64_t c = 0; c < kChannels; ++c)
          EXPECT_TRUE(torch::equal(own[head * kChannels + c],
                                   official.at(fused + kind)[(head * 3 + i) * kChannels + c]));
      }
    }
  }
  const Tensor &projection = ours.at("embedder.projection.weight"),
               &convolution = official.at("embedder.projection_layer.weight");
  const int64_t d_embed = convolution.size(1), length = convolution.size(2);
  ASSERT_EQ(projection.sizes(), (std::vector<int64_t>{32, length * d_embed}));
  for (int64_t t = 0; t < length; ++t)
    EXPECT_TRUE(torch::equal(projection.narrow(1, t * d_embed, d_embed), convolution.select(2, t)));
  EXPECT_TRUE(torch::equal(ours.at("token_decoder.expansion.weight"),
                           official.at("token_decoder.expansion_layer.weight").select(2, 0)));
}

TEST(OfficialLayoutTest, TheThreeTablesOfT5MustBeOne) {
  const auto official =
      read_tensors(golden_path("block_transformer/cls_cross_attention/model.safetensors"));
  const auto config = golden_choice("cls_cross_attention").as<BlockTransformerConfig>();
  for (const std::string name :
       {"token_decoder.decoder.embed_tokens.weight", "token_decoder.lm_head.weight"}) {
    auto changed = official;
    changed[name] = official.at(name) + 1;
    expect_error<std::runtime_error>(
        "tensor " + name + " differs from token_decoder.shared.weight, whose copy it is",
        [&] { from_official(config, changed); });
  }
}

// ---- how many numbers the files of the official models hold

int64_t stored(const std::string& yaml) {
  const auto tensors =
      with_config(model_choice(yaml), [](const auto& config) { return official_tensors(config); });
  int64_t sum = 0;
  for (const auto& tensor : tensors)
    sum +=
        std::accumulate(tensor.shape.begin(), tensor.shape.end(), int64_t{1}, std::multiplies<>());
  return sum;
}

TEST(OfficialTensorsTest, AFileOfAPublishedShapeHoldsAsManyNumbers) {
  const auto neox = [](int64_t width, int64_t layers, int64_t heads) {
    return "stack: gpt_neox, d_model: " + std::to_string(width) +
           ", ffn_dim: " + std::to_string(4 * width) + ", n_layers: " + std::to_string(layers) +
           ", n_heads: " + std::to_string(heads);
  };
  const auto block = [](const std::string& embedder, const std::string& block_decoder,
                        const std::string& token_decoder) {
    return "{family: block_transformer, vocab_size: 50304, block_length: 4, embedder: {" +
           embedder + "}, block_decoder: {" + block_decoder + "}, token_decoder: {" +
           token_decoder + "}}";
  };
  const std::string n6 = neox(768, 6, 12),
                    roberta = ", d_embed: 256, n_layers: 3, n_heads: 8, ffn_dim: 1024";
  EXPECT_EQ(stored(block("kind: lookup", neox(256, 3, 8), "kind: prefix, " + neox(256, 3, 8))),
            46724096);  // main 5
  EXPECT_EQ(
      stored(block("kind: lookup", neox(2048, 12, 16), "kind: prefix, " + neox(2048, 12, 16))),
      1551822848);  // main 1.2b
  EXPECT_EQ(stored(block("kind: lookup, combine: projection", n6, "kind: prefix, " + n6)),
            243132672);  // uptrain 85
  EXPECT_EQ(stored(block("kind: lookup", neox(768, 11, 12), "kind: summation, " + neox(512, 4, 8))),
            191956736);  // megabyte 85
  EXPECT_EQ(stored(block("kind: encoder" + roberta, n6, "kind: prefix, prefix_length: 1, " + n6)),
            217715200);
  EXPECT_EQ(stored(block("kind: cls" + roberta, n6, "kind: summation, " + n6)), 219290368);
  EXPECT_EQ(stored(block("kind: cls" + roberta, n6, "kind: cross_attention")), 272033152);
  EXPECT_EQ(stored("{family: gpt_neox, vocab_size: 50304, d_model: 512, ffn_dim: 2048, n_layers: "
                   "6, n_heads: 8}"),
            70426624);  // vanilla 70
}

// ---- what the official form has not

void expect_refused(const std::string& yaml, const std::string& message) {
  expect_user_error(kExitUsage, message, [&] {
    with_config(model_choice(yaml), [](const auto& config) { return official_tensors(config); });
  });
}

TEST(OfficialTensorsTest, WhatTheFormHasNotIsNamed) {
  const std::string neox = "stack: gpt_neox, d_model: 24, ffn_dim: 29, n_layers: 1, n_heads: 3",
                    form = " is not in the official form, which has ";
  const auto block = [&](const std::string& block_decoder, const std::string& token_decoder,
                         const std::string& embedder = "kind: lookup") {
    return "{family: block_transformer, vocab_size: 53, block_length: 3, embedder: {" + embedder +
           "}, block_decoder: {" + block_decoder + "}, token_decoder: {" + token_decoder + "}}";
  };
  const std::string
      prefix = "kind: prefix, " + neox,
      llama = "stack: transformer, d_model: 24, ffn_dim: 29, n_layers: 1, n_heads: 2, head_dim: 12";
  expect_refused(block(llama, prefix),
                 "model.block_decoder.stack = transformer" + form + "gpt_neox");
  expect_refused(block(neox, "kind: prefix, " + llama),
                 "model.token_decoder.stack = transformer" + form + "gpt_neox");
  expect_refused(block(neox, "kind: summation, " + llama),
                 "model.token_decoder.stack = transformer" + form + "gpt_neox");
  expect_refused(block(neox + ", head_dim: 10", prefix),
                 "model.block_decoder.head_dim = 10" + form + "n_heads * head_dim = d_model (24)");
  expect_refused(block(neox, prefix + ", parallel_residual: false"),
                 "model.token_decoder.parallel_residual = false" + form + "true");
  expect_refused(block(neox, prefix, "kind: encoder, d_embed: 24, n_heads: 2, head_dim: 8"),
                 "model.embedder.head_dim = 8" + form + "n_heads * head_dim = d_embed (24)");
  expect_refused("{family: block_transformer, block_length: 3, block_decoder: {" + neox +
                     "}, token_decoder: {" + prefix + "}}",
                 "model.vocab_size is absent, expected the number of rows of the tables");
  const auto neox_with = [](const std::string& more) {
    return "{family: gpt_neox, vocab_size: 53, d_model: 24, ffn_dim: 29, n_layers: 1, n_heads: "
           "3, " +
           more + "}";
  };
  expect_refused(neox_with("activation: gelu_tanh"),
                 "model.activation = gelu_tanh" + form + "gelu");
  expect_refused(neox_with("rope: {base: none}"),
                 "model.rope.base = none" + form + "rotary positions");
  expect_refused(neox_with("rope: {pairs: interleaved, fraction: 0.5}"),
                 "model.rope.pairs = interleaved" + form + "halves");
  expect_refused(neox_with("rope: {exponents: inclusive, fraction: 0.5}"),
                 "model.rope.exponents = inclusive" + form + "standard");
  expect_refused(neox_with("tie_embeddings: true"),
                 "model.tie_embeddings = true" + form + "two tables");
  expect_refused(neox_with("max_positions: 64"),
                 "model.max_positions = 64" + form + "no learned positions");
}

}  // namespace
}  // namespace tandem
