#include "nn/full_attention.h"

#include <gmock/gmock.h>

#include "tests/nn/helpers.h"

// What is full attention's own; what it shares with all mixers is in token_mixer_test.cpp.

namespace tandem {
namespace {

constexpr int64_t kD = 14, kTokens = 9;

std::shared_ptr<FullAttention> tiny_attention(bool bias = false) {
  const FullAttentionConfig config{.n_heads = 4, .n_kv_heads = 2, .head_dim = 6, .bias = bias};
  const auto mixer = std::make_shared<FullAttention>(config, MixerSpec{.d_model = kD});
  materialise_random(*mixer, 3);
  return mixer;
}

Tensor random_input() { return torch::randn({2, kTokens, kD}, seeded(4), torch::kFloat64); }

// The first token of row 0 and the first three of row 1 are padding.
Tensor padded_segment() {
  auto segment = torch::zeros({2, kTokens}, torch::kInt32);
  segment[0].slice(0, 0, 1).fill_(-1);
  segment[1].slice(0, 0, 3).fill_(-1);
  return segment;
}

TEST(FullAttentionTest, ATokenThatIsNoKeyStillSees) {
  const auto mixer = tiny_attention();
  auto context = context_of(2, 0, kTokens);
  context.key_segment = padded_segment();
  const auto x = random_input();
  const auto out = mixer->forward(x, context, nullptr);

  // Its input does not matter to others, and matters to itself.
  auto other = x.clone();
  other[1].slice(0, 0, 3).add_(1);
  const auto changed = mixer->forward(other, context, nullptr);
  expect_close(changed[0], out[0], 0);
  expect_close(changed[1].slice(0, 3), out[1].slice(0, 3), 0);

  // The rest attends as if it were not there.
  ForwardContext of_rest;
  of_rest.positions = torch::arange(3, kTokens).unsqueeze(0);
  expect_close(mixer->forward(x.slice(0, 1, 2).slice(1, 3), of_rest, nullptr)[0],
               out[1].slice(0, 3));

  // A key in front of it is seen.
  auto in_between = context_of(1, 0, kTokens);
  in_between.key_segment = torch::zeros({1, kTokens}, torch::kInt32);
  in_between.key_segment[0][1] = -1;
  const auto row = x.slice(0, 0, 1);
  auto moved = row.clone();
  moved[0][0].add_(1);
  EXPECT_GT(
      (mixer->forward(moved, in_between, nullptr) - mixer->forward(row, in_between, nullptr))[0][1]
          .abs()
          .max()
          .item<double>(),
      1e-3);
}

TEST(FullAttentionTest, QueriesKeepTheirOwnSegments) {
  const auto mixer = tiny_attention();
  auto context = context_of(2, 0, kTokens);
  context.segment = torch::tensor({0, 0, 0, 1, 1, 1, 1, 2, 2}, torch::kInt32).repeat({2, 1});
  const auto expected = mixer->forward(random_input(), context, nullptr);
  context.key_segment = context.segment.clone();
  expect_close(mixer->forward(random_input(), context, nullptr), expected, 0);
  context.key_segment[0][3] = -1;  // the first of document 1: it sees nothing then
  const auto out = mixer->forward(random_input(), context, nullptr);
  EXPECT_TRUE(out[0][3].eq(0).all().item<bool>());
  expect_close(out[0].slice(0, 0, 3), expected[0].slice(0, 0, 3), 1e-12);
  expect_close(out[0].slice(0, 7), expected[0].slice(0, 7), 1e-12);
  EXPECT_GT((out - expected)[0].slice(0, 4, 7).abs().amax(-1).min().item<double>(), 1e-4);
  expect_close(out[1], expected[1], 1e-12);
}

TEST(FullAttentionTest, KeySegmentsAreForTraining) {
  const auto mixer = tiny_attention();
  auto context = context_of(2, 0, kTokens);
  context.key_segment = padded_segment();
  const auto state = mixer->make_state({.batch = 2, .dtype = torch::kFloat64});
  try {
    mixer->forward(random_input(), context, state.get());
    FAIL();
  } catch (const c10::Error& error) {
    EXPECT_THAT(error.what_without_backtrace(),
                testing::HasSubstr("full attention: key_segment is for training"));
  }
}

TEST(FullAttentionTest, BiasesShiftTheProjections) {
  const auto biased = tiny_attention(/*bias=*/true), plain = tiny_attention();
  const auto p = biased->named_parameters();
  EXPECT_EQ(p.keys(), (std::vector<std::string>{"q_proj.weight", "q_proj.bias", "k_proj.weight",
                                                "k_proj.bias", "v_proj.weight", "v_proj.bias",
                                                "o_proj.weight", "o_proj.bias"}));
  // A constant channel makes biases columns of the weights.
  const torch::NoGradGuard no_grad;
  const auto x = random_input();
  const FullAttentionConfig config{.n_heads = 4, .n_kv_heads = 2, .head_dim = 6};
  FullAttention wide(config, MixerSpec{.d_model = kD + 1});
  materialise_random(wide, 5);
  for (const char* name : {"q_proj", "k_proj", "v_proj"}) {
    const std::string proj = name;
    wide.named_parameters()[proj + ".weight"].copy_(
        torch::cat({p[proj + ".weight"], p[proj + ".bias"].unsqueeze(1)}, 1));
  }
  wide.named_parameters()["o_proj.weight"].slice(0, 0, kD).copy_(p["o_proj.weight"]);
  const auto with_one = torch::cat({x, torch::ones({2, kTokens, 1}, torch::kFloat64)}, 2);
  const auto context = context_of(2, 0, kTokens);
  expect_close(biased->forward(x, context, nullptr),
               wide.forward(with_one, context, nullptr).slice(2, 0, kD) + p["o_proj.bias"]);
}

TEST(FullAttentionTest, ItsProjectionsAreDrawnAsTheSpecSays) {
  const FullAttentionConfig config{.n_heads = 4, .n_kv_heads = 2, .head_dim = 6, .bias = true};
  const FullAttention usual(config, {.d_model = kD}),
      normal(config, {.d_model = kD, .init = init_normal(0.02)});
  for (const auto& info : parameters_info(normal)) {
    const bool bias = info.global_shape.size() == 1;
    EXPECT_EQ(info.init.kind, bias ? Init::Kind::kConstant : Init::Kind::kNormal) << info.name;
    EXPECT_EQ(info.init.value, bias ? 0 : 0.02) << info.name;
    EXPECT_EQ(info.split_dim, info.name == "o_proj.weight" ? 1
                              : info.name == "o_proj.bias" ? -1
                                                           : 0)
        << info.name;
  }
  for (const auto& info : parameters_info(usual)) {
    if (info.global_shape.size() == 1) continue;
    EXPECT_EQ(info.init.kind, Init::Kind::kUniform) << info.name;
    EXPECT_DOUBLE_EQ(info.init.value, 1 / std::sqrt(static_cast<double>(info.global_shape[1])))
        << info.name;
  }
}

}  // namespace
}  // namespace tandem
