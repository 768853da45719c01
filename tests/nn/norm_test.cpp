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

}  // namespace
}  // namespace tandem
