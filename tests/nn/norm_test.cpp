#include "nn/norm.h"

#include "tests/nn/helpers.h"

namespace tandem {
namespace {

constexpr double kEps = 1e-3;

Tensor norm_slowly(const Tensor& x) {
  return x / at::sqrt(x.square().mean(-1, /*keepdim=*/true) + kEps);
}

// An RmsNorm with weights 1 + 0.3 N.
RmsNorm random_norm(int64_t dim, torch::Dtype dtype) {
  RmsNorm norm(dim, kEps);
  materialise_random(*norm, 5, dtype);
  return norm;
}

TEST(NormTest, IsTheDefinition) {
  const auto x = torch::randn({2, 3, 7}, seeded(1), torch::kFloat64);
  const auto norm = random_norm(7, torch::kFloat64);
  expect_close(rms_norm(x, kEps), norm_slowly(x), 1e-14);
  expect_close(norm->forward(x), norm_slowly(x) * norm->parameters()[0], 1e-14);
}

// Every head by itself, all with the same weight.
TEST(HeadNormTest, IsAnRmsNormOfEachHead) {
  const auto x = torch::randn({2, 3, 4, 7}, seeded(1), torch::kFloat64);
  HeadNorm norm(7, kEps);
  materialise_random(*norm, 5);
  Tensors heads;
  for (int64_t h = 0; h < 4; ++h)
    heads.push_back(norm_slowly(x.select(2, h)) * norm->parameters()[0]);
  expect_close(norm->forward(x), torch::stack(heads, 2), 1e-14);
  expect_gradients([&](const Tensors& in) -> Tensors { return {norm->forward(in[0])}; },
                   {x, norm->parameters()[0]});
  const auto info = parameters_info(*norm)[0];
  EXPECT_EQ(info.init.value, 1);
  EXPECT_FALSE(info.decay);
}

TEST(NormTest, GradientsMatchFiniteDifferences) {
  const auto x = torch::randn({2, 3, 7}, seeded(1), torch::kFloat64);
  const auto norm = random_norm(7, torch::kFloat64);
  expect_gradients([&](const Tensors& in) -> Tensors { return {norm->forward(in[0])}; },
                   {x, norm->parameters()[0]});
  expect_gradients([](const Tensors& in) -> Tensors { return {rms_norm(in[0], kEps)}; }, {x});
}

TEST(NormTest, GradientsEqualAutogradsInFloat32) {
  const auto norm = random_norm(33, torch::kFloat32);
  const auto weight = norm->parameters()[0];
  const auto x = torch::randn({5, 9, 33}, seeded(1), torch::kFloat32).requires_grad_();
  const auto g = torch::randn({5, 9, 33}, seeded(2), torch::kFloat32);
  const auto actual = torch::autograd::grad({norm->forward(x)}, {x, weight}, {g});
  const auto expected = torch::autograd::grad({norm_slowly(x) * weight}, {x, weight}, {g});
  expect_close(actual[0], expected[0], 1e-5);
  expect_close(actual[1], expected[1], 1e-4);
}

TEST(NormTest, RoundsBeforeTheWeight) {  // YOCO's order
  const auto norm = random_norm(33, torch::kBFloat16);
  const auto x = torch::randn({4, 33}, seeded(1), torch::kFloat32).to(torch::kBFloat16);
  const auto rounded = norm_slowly(x.to(torch::kFloat64)).to(torch::kBFloat16);
  EXPECT_TRUE(torch::equal(rms_norm(x, kEps), rounded));
  EXPECT_TRUE(torch::equal(norm->forward(x), rounded * norm->parameters()[0]));
}

TEST(NormTest, BFloat16GradientsAreComputedInFloat32) {
  const auto norm = random_norm(33, torch::kBFloat16);
  const auto wide = random_norm(33, torch::kFloat32);
  wide->parameters()[0].data().copy_(norm->parameters()[0]);
  const auto x =
      torch::randn({4, 33}, seeded(1), torch::kFloat32).to(torch::kBFloat16).requires_grad_();
  const auto wide_x = x.detach().to(torch::kFloat32).requires_grad_();
  const auto g = torch::randn({4, 33}, seeded(2), torch::kFloat32).to(torch::kBFloat16);
  const auto actual = torch::autograd::grad({norm->forward(x)}, {x, norm->parameters()[0]}, {g});
  const auto expected = torch::autograd::grad(
      {wide->forward(wide_x)}, {wide_x, wide->parameters()[0]}, {g.to(torch::kFloat32)});
  for (size_t i = 0; i < 2; ++i) {  // one rounding, relative 2^-9
    EXPECT_EQ(actual[i].scalar_type(), torch::kBFloat16);
    EXPECT_TRUE(torch::allclose(actual[i].to(torch::kFloat32), expected[i], /*rtol=*/0x1p-8,
                                /*atol=*/1e-5));
  }
}

TEST(NormTest, DoesNotChangeItsInput) {
  const auto x = torch::randn({3, 7}, seeded(1), torch::kFloat32), copy = x.clone();
  random_norm(7, torch::kFloat32)->forward(x);
  rms_norm(x, kEps);
  EXPECT_TRUE(torch::equal(x, copy));
}

TEST(NormTest, ItsWeightStartsAtOneAndIsNotDecayed) {
  RmsNorm norm(7, kEps);
  initialise(*norm, 1, torch::kCPU, torch::kFloat32);
  expect_close(norm->parameters()[0], torch::ones({7}), 0);
  EXPECT_FALSE(parameters_info(*norm)[0].decay);
}

LayerNorm random_layer_norm(int64_t dim, torch::Dtype dtype) {
  LayerNorm norm(dim, kEps);
  materialise_random(*norm, 6, dtype);
  return norm;
}

Tensor layer_norm_slowly(const Tensor& x, const LayerNorm& norm) {
  const auto p = norm->named_parameters();
  const auto centred = x - x.mean(-1, /*keepdim=*/true);
  return norm_slowly(centred) * p["weight"] + p["bias"];
}

TEST(LayerNormTest, IsTheDefinition) {
  const auto x = 3 + 2 * torch::randn({2, 3, 7}, seeded(1), torch::kFloat64);
  const auto norm = random_layer_norm(7, torch::kFloat64);
  expect_close(norm->forward(x), layer_norm_slowly(x, norm), 1e-14);
}

TEST(LayerNormTest, GradientsMatchFiniteDifferences) {
  const auto norm = random_layer_norm(7, torch::kFloat64);
  expect_gradients([&](const Tensors& in) -> Tensors { return {norm->forward(in[0])}; },
                   {torch::randn({2, 3, 7}, seeded(1), torch::kFloat64), norm->parameters()[0],
                    norm->parameters()[1]});
}

TEST(LayerNormTest, BFloat16IsRoundedOnceInValuesAndGradients) {
  const auto norm = random_layer_norm(33, torch::kBFloat16);
  const auto wide = random_layer_norm(33, torch::kFloat64);
  for (size_t i = 0; i < 2; ++i) wide->parameters()[i].data().copy_(norm->parameters()[i]);
  const auto x = torch::randn({9, 33}, seeded(1), torch::kFloat32)
                     .add(2)
                     .to(torch::kBFloat16)
                     .requires_grad_();
  const auto wide_x = x.detach().to(torch::kFloat64).requires_grad_();
  const auto g = torch::randn({9, 33}, seeded(2), torch::kFloat32).to(torch::kBFloat16);
  const auto y = norm->forward(x), wide_y = wide->forward(wide_x);
  EXPECT_EQ(y.scalar_type(), torch::kBFloat16);
  expect_close(y.to(torch::kFloat64) / wide_y, torch::ones({9, 33}), 0x1p-8 * 1.001);
  const auto actual =
      torch::autograd::grad({y}, {x, norm->parameters()[0], norm->parameters()[1]}, {g});
  const auto expected = torch::autograd::grad(
      {wide_y}, {wide_x, wide->parameters()[0], wide->parameters()[1]}, {g.to(torch::kFloat64)});
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(actual[i].scalar_type(), torch::kBFloat16);
    EXPECT_TRUE(torch::allclose(actual[i].to(torch::kFloat64), expected[i], /*rtol=*/0x1p-8,
                                /*atol=*/1e-5))
        << i;
  }
}

TEST(LayerNormTest, ItBeginsAsTheIdentityOfWhatIsNormalisedAndIsNotDecayed) {
  LayerNorm norm(7, kEps);
  initialise(*norm, 1, torch::kCPU, torch::kFloat32);
  const auto p = norm->named_parameters();
  EXPECT_EQ(p.keys(), (std::vector<std::string>{"weight", "bias"}));
  expect_close(p["weight"], torch::ones({7}), 0);
  expect_close(p["bias"], torch::zeros({7}), 0);
  for (const auto& info : parameters_info(*norm)) EXPECT_FALSE(info.decay) << info.name;
}

}  // namespace
}  // namespace tandem
