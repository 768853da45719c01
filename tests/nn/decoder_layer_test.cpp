#include "nn/decoder_layer.h"

#include <gmock/gmock.h>

#include "nn/recomputing_runner.h"
#include "tests/nn/helpers.h"
#include "tests/nn/toy_mixer.h"

namespace tandem {
namespace {

constexpr int64_t kD = 6, kF = 11;

class DecoderLayerTest : public testing::Test {
 protected:
  void SetUp() override { materialise_random(layer_, 1); }
  DecoderLayer layer_{std::make_shared<ToyMixer>(kD), kD, kF, 1e-5};
  Tensor x_ = torch::randn({2, 7, kD}, seeded(2), torch::kFloat64);
};

TEST_F(DecoderLayerTest, IsTwoResidualSteps) {
  const auto p = layer_.named_parameters();
  EXPECT_THAT(p.keys(), testing::ElementsAre("mixer_norm.weight", "mixer.proj.weight",
                                             "ffn_norm.weight", "ffn.gate_proj.weight",
                                             "ffn.up_proj.weight", "ffn.down_proj.weight"));
  const auto h =
      x_ +
      (rms_norm(x_, 1e-5) * p["mixer_norm.weight"]).cumsum(1).matmul(p["mixer.proj.weight"].t());
  const auto n = rms_norm(h, 1e-5) * p["ffn_norm.weight"];
  const auto hidden =
      swiglu(n.matmul(p["ffn.gate_proj.weight"].t()), n.matmul(p["ffn.up_proj.weight"].t()));
  expect_close(layer_.forward(x_, context_of(2, 0, 7), nullptr),
               h + hidden.matmul(p["ffn.down_proj.weight"].t()));
}

TEST_F(DecoderLayerTest, GradientsMatchFiniteDifferences) {
  const auto context = context_of(2, 0, 7);
  Tensors inputs = layer_.parameters();
  inputs.push_back(x_);
  expect_gradients(
      [&](const Tensors& in) -> Tensors { return {layer_.forward(in.back(), context, nullptr)}; },
      inputs);
}

TEST_F(DecoderLayerTest, RunsThroughTheRunnerOnce) {
  struct Recorder : LayerRunner {
    std::vector<const torch::nn::Module*> layers;
    Tensors run(torch::nn::Module& layer, const Tensors& inputs, const LayerFunction& f) override {
      layers.push_back(&layer);
      return f(inputs);
    }
  } recorder;
  auto context = context_of(2, 0, 7);
  const auto expected = layer_.forward(x_, context, nullptr);
  context.runner = &recorder;
  expect_close(layer_.forward(x_, context, nullptr), expected, 0);
  EXPECT_THAT(recorder.layers,
              testing::ElementsAre(static_cast<const torch::nn::Module*>(&layer_)));
}

TEST_F(DecoderLayerTest, TheStateGoesToTheMixer) {
  const auto expected = layer_.forward(x_, context_of(2, 0, 7), nullptr);
  const auto state = layer_.mixer().make_state({.batch = 2, .dtype = torch::kFloat64});
  const auto first = layer_.forward(x_.narrow(1, 0, 4), context_of(2, 0, 4), state.get());
  const auto second = layer_.forward(x_.narrow(1, 4, 3), context_of(2, 4, 3), state.get());
  expect_close(torch::cat({first, second}, 1), expected);
}

TEST_F(DecoderLayerTest, ItsContextMayBeGoneBeforeTheBackwardPass) {
  const auto gradients = [&](bool recompute) {
    RecomputingRunner runner;
    auto context = std::make_unique<ForwardContext>(context_of(2, 0, 7));
    context->lengths = torch::tensor({4, 6}, torch::kInt64);
    context->runner = recompute ? &runner : nullptr;
    const auto x = x_.clone().requires_grad_();
    const auto sum = layer_.forward(x, *context, nullptr).square().sum();
    context->lengths = torch::tensor({1, 1}, torch::kInt64);
    context.reset();
    auto inputs = layer_.parameters();
    inputs.push_back(x);
    for (auto& input : inputs) input.mutable_grad() = Tensor();
    sum.backward();
    Tensors found;
    for (const auto& input : inputs) found.push_back(input.grad());
    return found;
  };
  const auto plain = gradients(false), recomputed = gradients(true);
  for (size_t i = 0; i < plain.size(); ++i) expect_close(recomputed[i], plain[i], 0);
}

TEST_F(DecoderLayerTest, ItsFeedForwardHasThreeProducts) {
  EXPECT_EQ(layer_.ffn_flops(5), 2 * 3 * kD * kF * 5);
}

}  // namespace
}  // namespace tandem
