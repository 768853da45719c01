#include "blocktf/token_decoder.h"

#include <gmock/gmock.h>
#include <torch/csrc/autograd/autograd.h>

#include "nn/recomputing_runner.h"
#include "tests/blocktf/token_decoders.h"
#include "tests/core/helpers.h"
#include "tests/nn/helpers.h"

namespace tandem {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

struct Kind {
  const char* name;
  std::string config;
  bool official = false;
};
void PrintTo(const Kind& kind, std::ostream* out) { *out << kind.name; }

const Kind kKinds[] = {
    {"prefix_1", prefix_of(1)},
    {"prefix_2", prefix_of(2)},
    {"prefix_3", prefix_of(3)},
    {"prefix_1_official", prefix_of(1),
     true},  // where the official positions are those of training
    {"prefix_2_transformer", prefix_of(2, kTransformerKeys)},
    {"summation", summation_of()},
    {"summation_transformer", summation_of(kTransformerKeys)},
    {"cross_attention", kCrossAttention},
};
constexpr int64_t kRows = 3;

class TokenDecoderTest : public testing::TestWithParam<Kind> {
 protected:
  void make(int64_t block_length, torch::Dtype dtype = torch::kFloat64) {
    decoder_ = test_decoder(GetParam().config, block_length, GetParam().official);
    materialise_random(*decoder_, 5, dtype);
    context_ = torch::randn({kRows, kTestContext}, seeded(6), torch::kFloat64).to(dtype);
    tokens_ = torch::randint(kTestVocab, {kRows, block_length - 1}, seeded(7), torch::kInt64);
    shape_ = {.batch = kRows, .dtype = dtype};
  }
  Tensor forward(const Tensor& tokens, const Tensor& real = {}) {
    return decoder_->forward(context_, tokens, real, {});
  }

  std::shared_ptr<TokenDecoder> decoder_;
  Tensor context_, tokens_;
  StateShape shape_;
};

TEST_P(TokenDecoderTest, BeginningAndSteppingGiveTheEntriesOfTheWholeBlock) {
  for (const int64_t block_length : {1, 2, 3, 5}) {
    make(block_length);
    const auto expected = forward(tokens_);  // [B, L, D]
    ASSERT_EQ(expected.size(1), block_length);
    for (int64_t n = 0; n < block_length; ++n) {
      auto [h, state] = decoder_->begin(context_, tokens_.narrow(1, 0, n), shape_);
      expect_close(h, expected.select(1, n));
      for (int64_t t = n; t + 1 < block_length; ++t)
        expect_close(decoder_->step(tokens_.select(1, t), *state), expected.select(1, t + 1));
    }
  }
}

TEST_P(TokenDecoderTest, CountsTheBytesOfItsStates) {
  for (const auto dtype : {torch::kFloat32, torch::kFloat64}) {
    make(4);
    decoder_->to(dtype);
    context_ = context_.to(dtype);
    shape_.dtype = dtype;
    for (int64_t n = 0; n < 4; ++n) {
      auto [h, state] = decoder_->begin(context_, tokens_.narrow(1, 0, n), shape_);
      for (int64_t held = n;; ++held) {
        EXPECT_EQ(state->bytes(), kRows * decoder_->state_bytes(held, dtype)) << held;
        if (held == 3) break;
        h = decoder_->step(tokens_.select(1, held), *state);
      }
      expect_close(h, forward(tokens_).select(1, 3), dtype == torch::kFloat32 ? 1e-4 : 1e-10);
    }
  }
}

TEST_P(TokenDecoderTest, SelectedRowsGoOnByThemselves) {
  make(4);
  const auto expected = forward(tokens_);
  auto [h, state] = decoder_->begin(context_, tokens_.narrow(1, 0, 1), shape_);
  const auto rows = torch::tensor({2, 0, 2, 1}, torch::kInt64);
  const auto selected = state->select(rows);
  // Other tokens for the selected rows leave the first state as it was.
  const auto others = (tokens_.index_select(0, rows) + 1).remainder(kTestVocab);
  decoder_->step(others.select(1, 1), *state->select(rows));
  for (int64_t t = 1; t < 3; ++t) {
    const auto next = tokens_.select(1, t), after = expected.select(1, t + 1);
    expect_close(decoder_->step(next.index_select(0, rows), *selected),
                 after.index_select(0, rows));
    expect_close(decoder_->step(next, *state), after);
  }
  EXPECT_EQ(selected->bytes(), 4 * decoder_->state_bytes(3, torch::kFloat64));
}

TEST_P(TokenDecoderTest, ALaterTokenNeverReachesBack) {
  make(5);
  const auto before = forward(tokens_);
  for (int64_t t = 0; t < 4; ++t) {
    auto changed = tokens_.clone();
    changed.select(1, t).add_(1).remainder_(kTestVocab);
    const auto after = forward(changed);
    expect_close(after.narrow(1, 0, t + 1), before.narrow(1, 0, t + 1), 0);
    const auto difference = (after - before).abs().amax({0, 2});  // [L]
    for (int64_t j = t + 1; j < 5; ++j) EXPECT_GT(difference[j].item<double>(), 1e-4) << t << j;
  }
}

// The token at a padded place is what stands there as a query, and nothing to the others.
TEST_P(TokenDecoderTest, PaddingIsNoKeyForOthers) {
  make(5);
  for (int64_t t = 0; t < 4; ++t) {
    auto real = torch::ones({kRows, 4}, torch::kBool);
    real.select(1, t).fill_(false);
    auto changed = tokens_.clone();
    changed.select(1, t).add_(1).remainder_(kTestVocab);
    const auto difference =
        (forward(changed, real) - forward(tokens_, real)).abs().amax({0, 2});  // [L]
    for (int64_t j = 0; j < 5; ++j) {
      if (j == t + 1)
        EXPECT_GT(difference[j].item<double>(), 1e-4) << t << j;
      else
        EXPECT_LE(difference[j].item<double>(), 1e-12) << t << j;
    }
  }
}

TEST_P(TokenDecoderTest, RecomputedLayersGiveTheSameGradientsToTheBit) {
  make(4);
  const auto real = torch::rand({kRows, 3}, seeded(8)) < 0.6;
  RecomputingRunner runner;
  const auto gradients = [&](LayerRunner* with) {
    decoder_->zero_grad();
    const auto context = context_.clone().requires_grad_();
    {
      ForwardContext base;  // does not outlive the forward pass
      base.runner = with;
      const auto h = decoder_->forward(context, tokens_, real, base);
      at::linear(h, decoder_->head_weight()).log_softmax(-1).select(-1, 2).sum().backward();
    }
    Tensors all = {context.grad().clone()};
    for (const auto& parameter : decoder_->parameters()) all.push_back(parameter.grad().clone());
    return all;
  };
  const auto plain = gradients(nullptr), recomputed = gradients(&runner);
  for (size_t i = 0; i < plain.size(); ++i) {
    EXPECT_TRUE(torch::equal(plain[i], recomputed[i])) << i;
    EXPECT_GT(plain[i].abs().max().item<double>(), 0) << i;
  }
}

TEST_P(TokenDecoderTest, RunsInBfloat16) {
  make(3, torch::kBFloat16);
  const auto whole = forward(tokens_);
  EXPECT_EQ(whole.scalar_type(), torch::kBFloat16);
  auto [h, state] = decoder_->begin(context_, tokens_.narrow(1, 0, 1), shape_);
  expect_close(h, whole.select(1, 1), 0.1);
  expect_close(decoder_->step(tokens_.select(1, 1), *state), whole.select(1, 2), 0.1);
}

INSTANTIATE_TEST_SUITE_P(Kinds, TokenDecoderTest, testing::ValuesIn(kKinds),
                         [](const auto& kind) { return kind.param.name; });

std::vector<std::string> names_and_sizes(const LocalState& state) {
  std::vector<std::string> described;
  for (const auto& [name, tensor] : state.tensors())
    described.push_back((std::ostringstream() << name << " " << tensor.sizes()).str());
  return described;
}

TEST(LocalStateTest, NamesWhatItHolds) {
  const auto held = [](const std::string& config, bool official) {
    const auto decoder = test_decoder(config, 4, official);
    materialise_random(*decoder, 1);
    const auto context = torch::ones({2, kTestContext}, torch::kFloat64);
    const auto tokens = torch::ones({2, 1}, torch::kInt64);
    auto [h, state] = decoder->begin(context, tokens, {.batch = 2, .dtype = torch::kFloat64});
    return names_and_sizes(*state);
  };
  EXPECT_THAT(
      held(prefix_of(2), false),
      ElementsAre("layers.0.mixer.keys [2, 3, 3, 6]", "layers.0.mixer.values [2, 3, 3, 6]",
                  "layers.1.mixer.keys [2, 3, 3, 6]", "layers.1.mixer.values [2, 3, 3, 6]"));
  EXPECT_THAT(held(summation_of(kTransformerKeys), false),
              ElementsAre("layers.0.mixer.keys [2, 2, 1, 6]", "layers.0.mixer.values [2, 2, 1, 6]",
                          "layers.1.mixer.keys [2, 2, 1, 6]", "layers.1.mixer.values [2, 2, 1, 6]",
                          "context [2, 3, 10]"));
  EXPECT_THAT(held(prefix_of(2), true), ElementsAre("context [2, 2, 10]", "inputs [2, 1, 10]"));
  EXPECT_THAT(held(kCrossAttention, false), ElementsAre("context [2, 4, 10]", "inputs [2, 2, 10]"));
}

TEST(LocalStateTest, OfficialPositionsKeepTheInputs) {
  const auto decoder = test_decoder(prefix_of(2), 4, /*official=*/true);
  materialise_random(*decoder, 1);
  const auto context = torch::randn({2, kTestContext}, seeded(2), torch::kFloat64);
  const auto token = torch::tensor({4, 9}, torch::kInt64);
  auto [h, state] =
      decoder->begin(context, torch::zeros({2, 1}, torch::kInt64), {.dtype = torch::kFloat64});
  EXPECT_EQ(state->bytes(), 2 * decoder->state_bytes(1, torch::kFloat64));
  const auto swapped = state->select(torch::tensor({1, 0}, torch::kInt64));
  expect_close(decoder->step(token.flip(0), *swapped), decoder->step(token, *state).flip(0));
  EXPECT_EQ(state->bytes(), 2 * decoder->state_bytes(2, torch::kFloat64));
}

// Multiply-adds of the layers of kNeoxKeys for `t` inputs: projections between 10 and 18 channels,
// causal pairs of 18 channels for scores and mixing, 10 x 13 and back.
double neox_flops(double t) {
  return 2 * 2 * (4 * 10 * 18 * t + 2 * 18 * t * (t + 1) / 2 + 2 * 10 * 13 * t);
}

TEST(TokenDecoderFlopsTest, CountsTheExpansionAndThePositionsThatPredictionsNeed) {
  for (const int64_t n : {1, 2, 5}) {
    const auto t = static_cast<double>(n);
    // r vectors of 10 channels out of 7, and r - 1 inputs that predict nothing
    for (const int64_t r : {1, 2, 3}) {
      EXPECT_EQ(test_decoder(prefix_of(r), 5)->forward_flops(n),
                2.0 * 7 * 10 * static_cast<double>(r) + neox_flops(t + static_cast<double>(r) - 1));
    }
    EXPECT_EQ(test_decoder(summation_of(), 5)->forward_flops(n), 2.0 * 7 * 10 * 5 + neox_flops(t));
    // Width 15 between heads and back: q, k, v, o and q, o of each token, k and v of 5 vectors;
    // pairs with the tokens so far and the 5 vectors.
    const double cross =
        2 * 2 * (10 * 15 * (6 * t + 2 * 5) + 2 * 15 * (t * (t + 1) / 2 + 5 * t) + 2 * 10 * 13 * t);
    EXPECT_EQ(test_decoder(kCrossAttention, 5)->forward_flops(n), 2.0 * 7 * 10 * 5 + cross);
  }
  for (const auto& kind : kKinds)
    EXPECT_EQ(test_decoder(kind.config, 5)->forward_flops(0), 0) << kind.name;
}

std::vector<std::string> described_parameters(const TokenDecoder& decoder) {
  std::vector<std::string> described;
  for (const auto& info : parameters_info(decoder)) {
    std::ostringstream text;
    text << info.name << " " << c10::IntArrayRef(info.global_shape) << " "
         << (info.init.kind == Init::Kind::kConstant ? "constant " : "normal ")
         << std::round(info.init.value * 1e4) / 1e4;
    described.push_back(text.str());
  }
  return described;
}

// Initial values: block-transformer-code, sec. 7; the expansion's is 7^-1/2 = 0.378.
TEST(TokenDecoderParametersTest, OfTheEndsOfAStack) {
  const auto described = described_parameters(*test_decoder(prefix_of(2), 4));
  EXPECT_THAT(
      described,
      testing::IsSupersetOf(
          {"embedding.weight [17, 10] normal 0.02", "expansion.weight [20, 7] normal 0.378",
           "expansion.bias [20] constant 0", "layers.0.mixer.q_proj.weight [18, 10] normal 0.02",
           "layers.1.ffn.up_proj.bias [13] constant 0", "final_norm.weight [10] constant 1",
           "head.weight [17, 10] normal 0.02"}));
  EXPECT_EQ(described.size(), 1u + 2 + 2 * 16 + 2 + 1);
  const auto summation = test_decoder(summation_of(), 4);
  EXPECT_EQ(summation->n_layers(), 2);
  EXPECT_THAT(described_parameters(*summation),
              testing::Contains("expansion.weight [40, 7] normal 0.378"));
}

// T5: table 1, q (10 * 5)^-1/2, k, v, position bias and up 10^-1/2, o (3 * 5)^-1/2, down 13^-1/2.
TEST(TokenDecoderParametersTest, OfCrossAttention) {
  const auto decoder = test_decoder(kCrossAttention, 4);
  const auto described = described_parameters(*decoder);
  EXPECT_THAT(described,
              testing::IsSupersetOf(
                  {"embedding.weight [17, 10] normal 1", "expansion.weight [40, 7] normal 0.378",
                   "expansion.bias [40] constant 0", "position_bias.weight [4, 3] normal 0.3162",
                   "final_norm.weight [10] constant 1"}));
  EXPECT_EQ(described.size(), 5u + 2 * 13);
  EXPECT_THAT(described,
              testing::IsSupersetOf({"layers.1.attention_norm.weight [10] constant 1",
                                     "layers.1.q_proj.weight [15, 10] normal 0.1414",
                                     "layers.1.k_proj.weight [15, 10] normal 0.3162",
                                     "layers.1.v_proj.weight [15, 10] normal 0.3162",
                                     "layers.1.o_proj.weight [10, 15] normal 0.2582",
                                     "layers.1.cross_norm.weight [10] constant 1",
                                     "layers.1.cross_q_proj.weight [15, 10] normal 0.1414",
                                     "layers.1.cross_k_proj.weight [15, 10] normal 0.3162",
                                     "layers.1.cross_v_proj.weight [15, 10] normal 0.3162",
                                     "layers.1.cross_o_proj.weight [10, 15] normal 0.2582",
                                     "layers.1.ffn_norm.weight [10] constant 1",
                                     "layers.1.up_proj.weight [13, 10] normal 0.3162",
                                     "layers.1.down_proj.weight [10, 13] normal 0.2774"}));
  EXPECT_EQ(decoder->n_layers(), 2);
  EXPECT_EQ(decoder->head_weight().unsafeGetTensorImpl(),
            decoder->named_parameters()["embedding.weight"].unsafeGetTensorImpl());
}

TEST(TokenDecoderConfigTest, KeysOfTheStackStandBesideItsOwn) {
  auto choice = token_decoder_choice(
      "{kind: prefix, prefix_length: 3, stack: transformer, n_layers: 1, rope: {base: none}}");
  const auto& prefix = choice.as<PrefixDecoderConfig>();
  EXPECT_EQ(prefix.prefix_length, 3);
  EXPECT_EQ(prefix.stack.name, "transformer");
  EXPECT_EQ(prefix.stack.as<LayerStackConfig>().n_layers, 1);
  EXPECT_FALSE(prefix.stack.as<LayerStackConfig>().rope.base);
  TokenDecoderHolder holder{choice};
  EXPECT_THAT(inline_yaml(write_config(holder)),
              HasSubstr("{kind: prefix, prefix_length: 3, stack: transformer, d_model: 768"));
}

TEST(TokenDecoderConfigTest, TheFirstStackOfTheTableIsTheDefault) {
  const auto choice = token_decoder_choice("{kind: summation, n_heads: 4}");
  EXPECT_EQ(choice.as<SummationDecoderConfig>().stack.name, "gpt_neox");
  EXPECT_EQ(choice.as<SummationDecoderConfig>().stack.as<NeoxStackConfig>().n_heads, 4);
  // Each config has a stack of its own.
  const auto other = token_decoder_choice("{kind: summation}");
  EXPECT_EQ(other.as<SummationDecoderConfig>().stack.as<NeoxStackConfig>().n_heads, 8);
  const auto options = token_decoder_options(kTestStacks);
  Choice first{options, "kind", {}, {}}, second = first;
  first.pick("prefix");
  second.pick("prefix");
  first.as<PrefixDecoderConfig>().stack.as<NeoxStackConfig>().n_layers = 99;
  EXPECT_EQ(second.as<PrefixDecoderConfig>().stack.as<NeoxStackConfig>().n_layers, 6);
}

std::string refusal(const std::string& config) {
  try {
    token_decoder_choice(config);
  } catch (const UserError& error) {
    EXPECT_EQ(error.exit_code(), kExitUsage);
    return error.what();
  }
  return "no error";
}

TEST(TokenDecoderConfigTest, RefusesWithPlaceAndChoices) {
  EXPECT_EQ(refusal("{kind: prefx}"),
            "test.yaml:1: token_decoder.kind = prefx, expected one of: prefix, summation, "
            "cross_attention; did you mean prefix?");
  EXPECT_EQ(refusal("{kind: prefix, stack: yoco}"),
            "test.yaml:1: token_decoder.stack = yoco, expected one of: gpt_neox, transformer");
  EXPECT_EQ(refusal("{kind: prefix, prefix_lenght: 2}"),
            "test.yaml:1: unknown key token_decoder.prefix_lenght; did you mean prefix_length? "
            "known here: activation, d_model, ffn_dim, head_dim, n_heads, n_layers, norm_eps, "
            "parallel_residual, prefix_length, rope, stack");
  EXPECT_EQ(refusal("{kind: prefix, prefix_length: 0}"),
            "test.yaml:1: token_decoder.prefix_length = 0, expected an integer >= 1");
  EXPECT_EQ(refusal("{kind: summation, n_layers: 0}"),
            "test.yaml:1: token_decoder.n_layers = 0, expected an integer >= 1");
  EXPECT_EQ(refusal("{kind: cross_attention, stack: gpt_neox}"),
            "test.yaml:1: unknown key token_decoder.stack; known here: bos_id, d_model, ffn_dim, "
            "head_dim, max_position_distance, n_heads, n_layers, norm_eps, position_buckets");
  EXPECT_EQ(refusal("{kind: cross_attention, max_position_distance: 16}"),
            "test.yaml:1: token_decoder.max_position_distance = 16, expected more than half of "
            "position_buckets (16)");
}

TEST(TokenDecoderCallsTest, ShapesAreCheckedAtTheDoor) {
  const auto message = [](const auto& call) -> std::string {
    try {
      call();
    } catch (const c10::Error& error) {
      return error.what_without_backtrace();
    }
    return "no error";
  };
  for (const auto& config : {prefix_of(2), summation_of(), kCrossAttention}) {
    const auto decoder = test_decoder(config, 3);
    materialise_random(*decoder, 1);
    const auto context = torch::zeros({2, kTestContext}, torch::kFloat64);
    const auto tokens = [](int64_t n) { return torch::zeros({2, n}, torch::kInt64); };
    EXPECT_EQ(message([&] { decoder->forward(context.narrow(1, 0, 5), tokens(2), {}, {}); }),
              "token decoder: context [2, 5], expected [M, 7]");
    EXPECT_EQ(message([&] { decoder->forward(context, tokens(3), {}, {}); }),
              "token decoder: tokens [2, 3], expected [2, 2]");
    EXPECT_EQ(message([&] { decoder->forward(context, tokens(2), tokens(2), {}); }),
              "token decoder: real is [2, 2] long int, expected [2, 2] bool");
    const StateShape shape{.batch = 2, .dtype = torch::kFloat64};
    EXPECT_EQ(message([&] { decoder->begin(context, tokens(3), shape); }),
              "token decoder: tokens [2, 3], expected [2, n] with n < 3");
    auto [h, state] = decoder->begin(context, tokens(2), shape);
    EXPECT_EQ(message([&] { decoder->step(tokens(1).squeeze(1), *state); }),
              "token decoder: a block of 3 has no prediction after its last token");
  }
  expect_user_error(kExitUsage,
                    "model.token_decoder.bos_id = 17, expected less than model.vocab_size (17)",
                    [&] { test_decoder("{kind: summation, bos_id: 17, " + kNeoxKeys + "}", 3); });
}

}  // namespace
}  // namespace tandem
