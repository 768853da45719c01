#include "nn/multi_scale_retention.h"

#include <gmock/gmock.h>

#include <cmath>

#include "tests/nn/helpers.h"

// What is fixed decay's own; what it shares with all mixers is in token_mixer_test.cpp.

namespace tandem {
namespace {

constexpr int64_t kModel = 10, kHeads = 3, kDim = 4;

// A token of zeros adds nothing, so that the state only decays: 1 - 2^(-5-h), RetNet, sec. 2.2.
TEST(MultiScaleRetentionTest, HeadsForgetAtThePapersRates) {
  MultiScaleRetention mixer({.n_heads = 5, .head_dim = 2, .chunk = 4}, {.d_model = kModel});
  materialise_random(mixer, 61);
  const auto state = mixer.make_state({.batch = 1, .dtype = torch::kFloat64});
  mixer.forward(torch::randn({1, 7, kModel}, seeded(62), torch::kFloat64), context_of(1, 0, 7),
                state.get());
  const auto before = state->tensors()[0].second.clone();
  mixer.forward(torch::zeros({1, 1, kModel}, torch::kFloat64), context_of(1, 7, 1), state.get());
  const auto rates =
      torch::tensor({0.96875, 0.984375, 0.9921875, 0.99609375, 0.998046875}, torch::kFloat64);
  expect_close(state->tensors()[0].second, before * rates.view({1, 5, 1, 1}), 1e-14);
}

/// The mixer's output from its weights (q, k, v, g, o) by all pairs of tokens at once.
Tensor reference(const Tensor& x, const Tensors& weights, const MixerSpec& spec) {
  const int64_t n_tokens = x.size(1);
  const auto table = make_rope_table(spec.rope, kDim, context_of(x.size(0), 0, n_tokens).positions,
                                     torch::kFloat64);
  const auto heads = [&](size_t i) {
    return x.matmul(weights[i].t()).unflatten(-1, {kHeads, kDim});  // [B, T, H, K]
  };
  const auto q = apply_rope(heads(0), table, spec.rope),
             k = apply_rope(heads(1), table, spec.rope) / std::sqrt(static_cast<double>(kDim));
  const auto v = heads(2);
  Tensors outputs;
  for (int64_t h = 0; h < kHeads; ++h) {
    const double kept = 1 - std::pow(2.0, static_cast<double>(-5 - h));
    auto decay = torch::zeros({n_tokens, n_tokens}, torch::kFloat64);
    for (int64_t n = 0; n < n_tokens; ++n) {
      for (int64_t m = 0; m <= n; ++m) decay[n][m] = std::pow(kept, static_cast<double>(n - m));
    }
    const auto scores = q.select(2, h).matmul(k.select(2, h).transpose(1, 2)) * decay;
    const auto o = scores.matmul(v.select(2, h));  // [B, T, K]
    outputs.push_back(o * torch::rsqrt(o.square().mean(-1, /*keepdim=*/true) + spec.norm_eps));
  }
  const auto gate = x.matmul(weights[3].t());
  return (gate * gate.sigmoid() * torch::cat(outputs, -1)).matmul(weights[4].t());
}

TEST(MultiScaleRetentionTest, ValuesAndGradientsAreThoseOfAllPairs) {
  const MixerSpec spec{.d_model = kModel,
                       .norm_eps = 1e-3,
                       .rope = {.base = 100.0, .pairs = "interleaved", .exponents = "inclusive"}};
  for (const int64_t chunk : {1, 8, 64}) {
    SCOPED_TRACE("chunk " + std::to_string(chunk));
    MultiScaleRetention mixer({.n_heads = kHeads, .head_dim = kDim, .chunk = chunk}, spec);
    materialise_random(mixer, 63);
    const auto named = mixer.named_parameters();
    EXPECT_THAT(named.keys(),
                testing::UnorderedElementsAre("q_proj.weight", "k_proj.weight", "v_proj.weight",
                                              "g_proj.weight", "o_proj.weight"));
    Tensors inputs;
    for (const char* name : {"q_proj", "k_proj", "v_proj", "g_proj", "o_proj"})
      inputs.push_back(named[std::string(name) + ".weight"]);
    const auto x = torch::randn({2, 23, kModel}, seeded(64), torch::kFloat64).requires_grad_();
    const auto actual = mixer.forward(x, context_of(2, 0, 23), nullptr),
               expected = reference(x, inputs, spec);
    expect_close(actual, expected);

    inputs.push_back(x);
    const auto weights = torch::randn(actual.sizes(), seeded(65), torch::kFloat64);
    const auto gradients = torch::autograd::grad({(actual * weights).sum()}, inputs),
               expected_gradients = torch::autograd::grad({(expected * weights).sum()}, inputs);
    for (size_t i = 0; i < inputs.size(); ++i) {
      SCOPED_TRACE("gradient of input " + std::to_string(i));
      expect_close(gradients[i], expected_gradients[i]);
    }
  }
}

// 1 - 2^-25 is 1 in float32: its logarithm must not be taken of it.
TEST(MultiScaleRetentionTest, TheSlowestHeadsForgetInFloat32Too) {
  MultiScaleRetention mixer({.n_heads = 21, .head_dim = 2, .chunk = 64}, {.d_model = kModel});
  materialise_random(mixer, 66, torch::kFloat32);
  const auto state = mixer.make_state({.batch = 1, .dtype = torch::kFloat32});
  mixer.forward(torch::ones({1, 1, kModel}, torch::kFloat32), context_of(1, 0, 1), state.get());
  const auto before = state->tensors()[0].second.to(torch::kFloat64, false, /*copy=*/true);
  mixer.forward(torch::zeros({1, 4096, kModel}, torch::kFloat32), context_of(1, 1, 4096),
                state.get());
  const auto lost = 1 - state->tensors()[0].second.to(torch::kFloat64) / before;  // [1, H, K, K]
  EXPECT_NEAR(lost[0][20].mean().item<double>(), std::pow(2.0, 12 - 25), 1e-5);
}

}  // namespace
}  // namespace tandem
