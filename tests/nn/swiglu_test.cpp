#include "nn/swiglu.h"

#include <gmock/gmock.h>

#include "tests/nn/helpers.h"

namespace tandem {
namespace {

Tensor swiglu_slowly(const Tensor& gate, const Tensor& up) {
  return gate / (1 + at::exp(-gate)) * up;
}

TEST(SwiGluTest, IsTheDefinition) {
  const auto gate = torch::randn({2, 3, 7}, seeded(1), torch::kFloat64);
  const auto up = torch::randn({2, 3, 7}, seeded(2), torch::kFloat64);
  expect_close(swiglu(gate, up), swiglu_slowly(gate, up), 1e-14);
}

TEST(SwiGluTest, GradientsMatchFiniteDifferences) {
  expect_gradients([](const Tensors& in) -> Tensors { return {swiglu(in[0], in[1])}; },
                   {torch::randn({2, 3, 7}, seeded(1), torch::kFloat64),
                    torch::randn({2, 3, 7}, seeded(2), torch::kFloat64)});
}

TEST(SwiGluTest, RoundsOnce) {
  const auto gate =
      torch::randn({5, 33}, seeded(1), torch::kFloat32).to(torch::kBFloat16).requires_grad_();
  const auto up =
      torch::randn({5, 33}, seeded(2), torch::kFloat32).to(torch::kBFloat16).requires_grad_();
  const auto g = torch::randn({5, 33}, seeded(3), torch::kFloat32).to(torch::kBFloat16);
  const auto wide_gate = gate.detach().to(torch::kFloat32).requires_grad_();
  const auto wide_up = up.detach().to(torch::kFloat32).requires_grad_();
  const auto y = swiglu(gate, up), wide_y = swiglu_slowly(wide_gate, wide_up);
  const auto actual = torch::autograd::grad({y}, {gate, up}, {g});
  const auto expected =
      torch::autograd::grad({wide_y}, {wide_gate, wide_up}, {g.to(torch::kFloat32)});
  EXPECT_EQ(y.scalar_type(), torch::kBFloat16);
  EXPECT_TRUE(torch::allclose(y.to(torch::kFloat32), wide_y, /*rtol=*/0x1p-8, /*atol=*/1e-6));
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(actual[i].scalar_type(), torch::kBFloat16);
    EXPECT_TRUE(torch::allclose(actual[i].to(torch::kFloat32), expected[i], /*rtol=*/0x1p-8,
                                /*atol=*/1e-6));
  }
}

TEST(SwiGluTest, DoesNotChangeItsInputs) {
  const auto gate = torch::randn({3, 7}, seeded(1), torch::kFloat32).requires_grad_(),
             up = torch::randn({3, 7}, seeded(2), torch::kFloat32).requires_grad_();
  const auto gate_copy = gate.detach().clone(), up_copy = up.detach().clone();
  swiglu(gate, up).sum().backward();
  EXPECT_TRUE(torch::equal(gate, gate_copy));
  EXPECT_TRUE(torch::equal(up, up_copy));
}

TEST(SwiGluTest, TheModuleIsThreeMatrices) {
  SwiGlu ffn(5, 11);
  materialise_random(*ffn, 1);
  const auto p = ffn->named_parameters();
  EXPECT_THAT(p.keys(),
              testing::ElementsAre("gate_proj.weight", "up_proj.weight", "down_proj.weight"));
  const auto x = torch::randn({2, 3, 5}, seeded(2), torch::kFloat64);
  const auto hidden = swiglu_slowly(x.matmul(p["gate_proj.weight"].t()),
                                    x.matmul(p["up_proj.weight"].t()));  // [B, T, 11]
  expect_close(ffn->forward(x), hidden.matmul(p["down_proj.weight"].t()));
}

}  // namespace
}  // namespace tandem
