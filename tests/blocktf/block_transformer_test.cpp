#include "blocktf/block_transformer.h"

#include <gtest/gtest.h>

#include <numeric>

#include "nn/device_sampler.h"
#include "tests/cli/tiny_models.h"

namespace tandem {
namespace {

constexpr int64_t kVocab = 31;

std::string yaml_of(int64_t block_length) {
  return "{family: block_transformer, vocab_size: 31, block_length: " +
         std::to_string(block_length) +
         ", embedder: {kind: lookup, combine: projection, d_embed: 5}, "
         "block_decoder: {stack: gpt_neox, d_model: 24, ffn_dim: 29, n_layers: 2, n_heads: 3}, "
         "token_decoder: {kind: prefix, prefix_length: 2, stack: gpt_neox, d_model: 16, ffn_dim: "
         "31, n_layers: 1, n_heads: 2}}";
}

std::string message(const std::function<void()>& run) {
  try {
    run();
  } catch (const c10::Error& error) {
    return error.what_without_backtrace();
  }
  return "";
}

Tensor ids(const std::vector<int64_t>& values) {
  return torch::tensor(values, torch::kInt64).unsqueeze(0);
}

// Multiply-adds of a NeoX layer over n positions that see n (n + 1) / 2 pairs.
double layers_of(double n_layers, double d, double ffn, double n, double pairs) {
  return n_layers * 2 * (n * (4 * d * d + 2 * d * ffn) + 2 * pairs * d);
}

TEST(BlockTransformerTest, FlopsAreThoseOfItsParts) {
  for (const int64_t block_length : {1, 3, 4}) {
    for (const int64_t length : {24, 26}) {
      SCOPED_TRACE(std::to_string(block_length) + " " + std::to_string(length));
      const auto model = make_tiny_model(yaml_of(block_length));
      const double L = static_cast<double>(block_length),
                   N = static_cast<double>(length / block_length), rows = 3;
      const double embedder = 2 * L * 5 * 24, head = 2.0 * 16 * kVocab, expansion = 2 * 24 * 2 * 16;
      const auto tokens = [&](double n) {  // of one block with n predictions: n + 1 positions
        return expansion + layers_of(1, 16, 31, n + 1, (n + 1) * (n + 2) / 2);
      };
      const double blocks = layers_of(2, 24, 29, N, N * (N + 1) / 2);
      const double rest = static_cast<double>(length % block_length);
      EXPECT_DOUBLE_EQ(model->flops(Phase::kTrain, length, 3).total(),
                       3 * rows * (N * embedder + blocks + N * tokens(L) + N * L * head));
      EXPECT_DOUBLE_EQ(model->flops(Phase::kPrefill, length, 3).total(),
                       rows * (N * embedder + blocks + tokens(rest + 1) + head));
      EXPECT_NEAR(model->flops(Phase::kDecode, length, 3).total(),
                  rows * ((embedder + layers_of(2, 24, 29, 1, N + 1) + tokens(L)) / L + head),
                  1e-6);
    }
  }
}

TEST(BlockTransformerTest, TheCacheHoldsBlocksWhateverTheCalls) {
  const auto model = make_tiny_model(yaml_of(4));
  StateShape shape;
  shape.batch = 4;
  shape.dtype = torch::kFloat64;
  const auto state = model->make_state(shape);
  auto generator = seeded(1);
  const auto random = [&](int64_t n) {
    return torch::randint(kVocab, {4, n}, generator, torch::kInt64);
  };
  // Each row in another phase, then token by token: some row completes a block at every call.
  model->extend(random(7), torch::tensor({4, 5, 6, 7}, torch::kInt64), *state, Want::kNothing);
  for (int t = 0; t < 13; ++t) model->extend(random(1), {}, *state, Want::kLast);
  for (const auto& [name, tensor] : state->tensors()) {
    if (name.ends_with("keys")) EXPECT_EQ(tensor.size(1), 5) << name;  // of 20 tokens at most
  }
}

TEST(BlockTransformerTest, MisuseIsNamed) {
  const auto model = make_tiny_model(yaml_of(3));
  StateShape shape;
  shape.dtype = torch::kFloat64;
  auto state = model->make_state(shape);
  DeviceSampler greedy({.temperature = 0}, 1, torch::kCPU);
  EXPECT_EQ(message([&] { model->generate_block(*state, greedy); }),
            "generate_block: the state has no logits to begin with, expected extend with "
            "Want::kLast before it");
  const Tensor short_prompt = model->extend(ids({4, 5}), {}, *state, Want::kLast);
  EXPECT_TRUE(short_prompt.isnan().all().item<bool>());
  EXPECT_EQ(message([&] { model->generate_block(*state, greedy); }),
            "generate_block: a row holds no whole block yet, expected a prompt of at least 3 "
            "tokens, padding included");
  const std::string padding =
      "extend: padding behind a token or a block of it, expected less than 3 in front of a row's "
      "first token";
  EXPECT_EQ(message([&] { model->extend(ids({-1}), {}, *state, Want::kNothing); }), padding);
  state = model->make_state(shape);
  EXPECT_EQ(message([&] { model->extend(ids({4, -1, 5}), {}, *state, Want::kNothing); }), padding);
  EXPECT_EQ(message([&] {
              model->extend(ids({-1, -1, -1, 5}), {}, *state, Want::kNothing);
            }),
            padding);
  model->extend(ids({-1}), {}, *state, Want::kNothing);  // in pieces it is the same padding
  EXPECT_EQ(message([&] { model->extend(ids({-1, -1}), {}, *state, Want::kNothing); }), padding);
  model->extend(ids({-1, 5}), {}, *state, Want::kLast);
  model->generate_block(*state, greedy);
  EXPECT_EQ(message([&] { model->extend(ids({31}), {}, *state, Want::kNothing); }),
            "token ids from 31 to 31, expected -1 to 30");

  Batch batch;
  batch.tokens = ids({1, 2, 3, 4, 5, 6});
  batch.targets = ids({-100, 3, 4, 5, 6, 7});
  EXPECT_EQ(message([&] { model->loss(batch, {}); }),
            "loss: the first 2 targets of a row have no probability, expected rows that packing() "
            "was applied to");
  batch.tokens = ids({1, 2});
  batch.targets = ids({-100, -100});
  EXPECT_EQ(message([&] { model->loss(batch, {}); }),
            "loss: rows of 2 tokens, expected at least a block of 3");
}

}  // namespace
}  // namespace tandem
