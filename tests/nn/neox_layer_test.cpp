#include "nn/neox_layer.h"

#include <tuple>

#include "nn/recomputing_runner.h"
#include "tests/nn/helpers.h"
#include "tests/nn/neox_reference.h"

namespace tandem {
namespace {

constexpr int64_t kTokens = 7, kRotated = 4;

class NeoxLayerTest : public testing::TestWithParam<std::tuple<bool, std::string>> {
 protected:
  void SetUp() override { materialise_random(layer_, 1); }
  NeoxLayerSpec spec_{.d_model = 13,
                      .ffn_dim = 19,
                      .n_heads = 3,
                      .head_dim = 10,
                      .norm_eps = 1e-3,
                      .rope = {.base = 50.0, .fraction = 0.45},
                      .parallel_residual = std::get<0>(GetParam()),
                      .activation = std::get<1>(GetParam())};
  NeoxLayer layer_{spec_};
  Tensor x_ = torch::randn({2, kTokens, 13}, seeded(2), torch::kFloat64);
};

TEST_P(NeoxLayerTest, EqualsPlainArithmeticInValuesAndGradients) {
  const auto p = layer_.named_parameters();
  const Weights weight = [&](const std::string& name) { return p[name]; };
  auto inputs = layer_.parameters();
  inputs.push_back(x_.requires_grad_());
  const auto actual = layer_.forward(x_, context_of(2, 0, kTokens), nullptr);
  const auto expected = torch::stack({neox_layer_of(x_[0], spec_, kRotated, weight, ""),
                                      neox_layer_of(x_[1], spec_, kRotated, weight, "")});
  expect_close(actual, expected);
  const auto weights = torch::randn(actual.sizes(), seeded(3), torch::kFloat64);
  const auto gradients = torch::autograd::grad({(actual * weights).sum()}, inputs);
  const auto expected_gradients = torch::autograd::grad({(expected * weights).sum()}, inputs);
  for (size_t i = 0; i < inputs.size(); ++i) {
    SCOPED_TRACE(i < p.size() ? p.keys()[i] : "x");
    expect_close(gradients[i], expected_gradients[i]);
  }
}

TEST_P(NeoxLayerTest, PiecesEqualTheWhole) {
  const auto expected = layer_.forward(x_, context_of(2, 0, kTokens), nullptr);
  const auto state = layer_.mixer().make_state({.batch = 2, .dtype = torch::kFloat64});
  Tensors pieces;
  int64_t begin = 0;
  for (const auto& piece : x_.split_with_sizes({4, 1, 2}, 1)) {
    pieces.push_back(layer_.forward(piece, context_of(2, begin, piece.size(1)), state.get()));
    begin += piece.size(1);
  }
  expect_close(torch::cat(pieces, 1), expected);
}

TEST_P(NeoxLayerTest, RecomputingChangesNoBitAndNeedsNoContext) {
  const auto gradients = [&](bool recompute) {
    RecomputingRunner runner;
    auto inputs = layer_.parameters();
    inputs.push_back(x_.detach().clone().requires_grad_());
    auto context = std::make_unique<ForwardContext>(context_of(2, 3, kTokens));
    context->segment = torch::tensor({0, 0, 1, 1, 1, 2, -1}, torch::kInt32).repeat({2, 1});
    context->runner = recompute ? &runner : nullptr;
    const auto sum = layer_.forward(inputs.back(), *context, nullptr).square().sum();
    context.reset();
    layer_.zero_grad();
    sum.backward();
    Tensors found;
    for (const auto& input : inputs) found.push_back(input.grad().clone());
    return found;
  };
  const auto plain = gradients(false), recomputed = gradients(true);
  for (size_t i = 0; i < plain.size(); ++i) expect_close(recomputed[i], plain[i], 0);
}

INSTANTIATE_TEST_SUITE_P(, NeoxLayerTest,
                         testing::Combine(testing::Bool(), testing::Values("gelu", "gelu_tanh")),
                         [](const auto& test) {
                           return std::string(std::get<0>(test.param) ? "parallel_"
                                                                      : "sequential_") +
                                  std::get<1>(test.param);
                         });

TEST(NeoxLayerPartsTest, NamesShapesAndInitialValues) {
  NeoxLayer layer({.d_model = 13, .ffn_dim = 19, .n_heads = 3, .head_dim = 10});
  std::vector<std::pair<std::string, std::vector<int64_t>>> shapes;
  for (const auto& info : parameters_info(layer)) {
    shapes.emplace_back(info.name, info.global_shape);
    const bool matrix = info.global_shape.size() > 1;
    EXPECT_EQ(info.decay, matrix) << info.name;
    EXPECT_EQ(info.init.kind, matrix ? Init::Kind::kNormal : Init::Kind::kConstant) << info.name;
    EXPECT_EQ(info.init.value, matrix                               ? 0.02
                               : info.name.ends_with("norm.weight") ? 1
                                                                    : 0)
        << info.name;
  }
  const decltype(shapes) expected = {
      {"mixer_norm.weight", {13}},        {"mixer_norm.bias", {13}},
      {"mixer.q_proj.weight", {30, 13}},  {"mixer.q_proj.bias", {30}},
      {"mixer.k_proj.weight", {30, 13}},  {"mixer.k_proj.bias", {30}},
      {"mixer.v_proj.weight", {30, 13}},  {"mixer.v_proj.bias", {30}},
      {"mixer.o_proj.weight", {13, 30}},  {"mixer.o_proj.bias", {13}},
      {"ffn_norm.weight", {13}},          {"ffn_norm.bias", {13}},
      {"ffn.up_proj.weight", {19, 13}},   {"ffn.up_proj.bias", {19}},
      {"ffn.down_proj.weight", {13, 19}}, {"ffn.down_proj.bias", {13}},
  };
  EXPECT_EQ(shapes, expected);
  EXPECT_EQ(layer.ffn_flops(5), 2 * 2 * 13 * 19 * 5);
}

}  // namespace
}  // namespace tandem
