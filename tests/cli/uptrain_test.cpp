#include "cli/uptrain.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/error.h"
#include "tests/cli/tiny_checkpoint.h"
#include "tests/data/temp_folder.h"

namespace tandem {
namespace {

const char* const kTransformer =
    "{family: transformer, vocab_size: 53, tie_embeddings: true, embedding_scale: true, "
    "d_model: 22, ffn_dim: 29, n_layers: 3, n_heads: 4, n_kv_heads: 2, head_dim: 6}";
const char* const kOutOfTransformer =
    "{family: block_transformer, vocab_size: 53, block_length: 3, "
    "embedder: {kind: lookup, combine: projection}, "
    "block_decoder: {stack: transformer, d_model: 22, ffn_dim: 29, n_layers: 1, n_heads: 4, "
    "n_kv_heads: 2, head_dim: 6}, "
    "token_decoder: {kind: prefix, stack: transformer, d_model: 22, ffn_dim: 29, n_layers: 2, "
    "n_heads: 4, n_kv_heads: 2, head_dim: 6}}";
const char* const kNeox =
    "{family: gpt_neox, vocab_size: 259, d_model: 24, ffn_dim: 29, n_layers: 2, n_heads: 3, "
    "parallel_residual: false}";
const char* const kOutOfNeox =
    "{family: block_transformer, vocab_size: 259, block_length: 4, "
    "embedder: {kind: lookup, combine: projection}, "
    "block_decoder: {stack: gpt_neox, d_model: 24, ffn_dim: 29, n_layers: 1, n_heads: 3, "
    "parallel_residual: false}, "
    "token_decoder: {kind: prefix, stack: gpt_neox, d_model: 24, ffn_dim: 29, n_layers: 1, "
    "n_heads: 3, parallel_residual: false}}";

class UptrainFromCheckpointTest : public testing::Test {
 protected:
  // A checkpoint of random weights.
  Checkpoint checkpoint(const std::string& model_yaml) const {
    return Checkpoint(find_checkpoint(write_tiny_run(folder_ / "run", model_yaml)));
  }
  static std::shared_ptr<LanguageModel> uptrained(const std::string& yaml, const Checkpoint& from) {
    const Choice model = model_choice(yaml);
    auto into = model_factory().build(model);
    initialise(*into, 5, torch::kCPU, torch::kFloat32);
    uptrain_from_checkpoint(model, *into, from);
    return into;
  }
  std::string message_of(const std::string& into, const std::string& from) const {
    const Checkpoint source = checkpoint(from);
    try {
      uptrained(into, source);
    } catch (const UserError& error) {
      EXPECT_EQ(error.exit_code(), kExitUsage);
      return error.what();
    }
    return "";
  }
  std::string source_folder() const { return checkpoint_folder(folder_ / "run", 7); }

  const TempFolder folder_;
};

TEST_F(UptrainFromCheckpointTest, OutOfATransformerWithScaledTiedEmbeddings) {
  const Checkpoint from = checkpoint(kTransformer);
  const auto into = uptrained(kOutOfTransformer, from)->named_parameters();
  const Tensor table = from.weight("embedding.weight");
  expect_close(into["embedder.embedding.weight"], table * std::sqrt(22.0), 1e-6);
  expect_close(into["token_decoder.embedding.weight"], table * std::sqrt(22.0), 1e-6);
  expect_close(into["token_decoder.head.weight"], table, 0);
  expect_close(into["block_decoder.layers.0.ffn.up_proj.weight"],
               from.weight("layers.0.ffn.up_proj.weight"), 0);
  expect_close(into["token_decoder.layers.1.mixer.k_proj.weight"],
               from.weight("layers.2.mixer.k_proj.weight"), 0);
  expect_close(into["token_decoder.final_norm.weight"], from.weight("final_norm.weight"), 0);
  expect_close(into["block_decoder.final_norm.weight"], torch::ones({22}), 0);
}

TEST_F(UptrainFromCheckpointTest, OutOfGptNeox) {
  const Checkpoint from = checkpoint(kNeox);
  const auto into = uptrained(kOutOfNeox, from)->named_parameters();
  expect_close(into["embedder.embedding.weight"], from.weight("embedding.weight"), 0);
  expect_close(into["token_decoder.head.weight"], from.weight("head.weight"), 0);
  expect_close(into["token_decoder.layers.0.mixer.q_proj.bias"],
               from.weight("layers.1.mixer.q_proj.bias"), 0);
  expect_close(into["token_decoder.final_norm.bias"], from.weight("final_norm.bias"), 0);
  expect_close(into["block_decoder.final_norm.bias"], torch::zeros({24}), 0);
}

TEST_F(UptrainFromCheckpointTest, OnlyABlockTransformerIsUptrained) {
  EXPECT_EQ(message_of(kTransformer, kTransformer),
            "init.as = uptrain: model.family = transformer, expected block_transformer");
}

TEST_F(UptrainFromCheckpointTest, OnlyPlainTransformersAreSources) {
  EXPECT_EQ(message_of(kOutOfTransformer, kTinyByteYoco),
            "init.from = " + source_folder() +
                ", expected a model of family transformer or gpt_neox, not yoco");
}

TEST_F(UptrainFromCheckpointTest, LearnedPositionsHaveNoPlaceInABlockTransformer) {
  EXPECT_EQ(message_of(kOutOfNeox,
                       "{family: gpt_neox, vocab_size: 259, d_model: 24, ffn_dim: 29, n_layers: 2, "
                       "n_heads: 3, max_positions: 32}"),
            "init.from = " + source_folder() +
                ", expected a model without learned positions, not one of max_positions: 32");
}

TEST_F(UptrainFromCheckpointTest, WhatDoesNotFitIsNamed) {
  EXPECT_EQ(message_of(kOutOfNeox, kTransformer),
            "init.as = uptrain: model.block_decoder.stack = gpt_neox, expected transformer, as in "
            "the model to start from");
}

}  // namespace
}  // namespace tandem
