#pragma once
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/types.h>

#include <cmath>
#include <cstdint>
#include <functional>
#include <string>

#include "nn/forward_context.h"
#include "nn/parameter.h"

// What the tests of tensors share.

namespace tandem {

/// Same shape and |actual - expected| <= atol everywhere, compared in float64. A NaN on either side
/// fails.
inline void expect_close(const Tensor& actual, const Tensor& expected, double atol = 1e-10) {
  ASSERT_TRUE(actual.defined() && expected.defined());
  ASSERT_EQ(actual.sizes(), expected.sizes());
  if (actual.numel() == 0) return;
  const auto difference =
      (actual.detach().to(torch::kFloat64) - expected.detach().to(torch::kFloat64)).abs().max();
  EXPECT_LE(difference.item<double>(), atol);
}

/// A source of numbers of one test's own.
inline at::Generator seeded(uint64_t seed) {
  return at::make_generator<at::CPUGeneratorImpl>(seed);
}

/// Positions [B, T] = begin + 0 .. T-1 and nothing else.
inline ForwardContext context_of(int64_t batch, int64_t begin, int64_t n_tokens) {
  ForwardContext context;
  context.positions = torch::arange(begin, begin + n_tokens).repeat({batch, 1});
  return context;
}

/// Gives every parameter random values that depend on (seed, names, shapes) only: vectors (norm
/// weights) 1 + 0.3 N, matrices N / sqrt(columns). Drawn in float64, then cast.
inline void materialise_random(torch::nn::Module& module, uint64_t seed,
                               torch::Dtype dtype = torch::kFloat64) {
  auto generator = seeded(seed);
  for (auto& item : module.named_parameters()) {
    Tensor& parameter = item.value();
    const auto noise = torch::randn(parameter.sizes(), generator, torch::kFloat64);
    const auto values = parameter.dim() == 1
                            ? 1 + 0.3 * noise
                            : noise / std::sqrt(static_cast<double>(parameter.size(-1)));
    materialise(parameter, values.to(dtype));
  }
}

/// Checks the gradients of `f` (float64 tensors to float64 tensors) against central differences,
/// along two random directions of each input. `inputs` may hold parameters that f reads by itself;
/// undefined and integer inputs are passed on unchecked.
inline void expect_gradients(const std::function<Tensors(const Tensors&)>& f, const Tensors& inputs,
                             double tolerance = 1e-6, uint64_t seed = 7) {
  auto generator = seeded(seed);
  Tensors leaves, checked;
  for (const auto& input : inputs) {
    const bool differentiable = input.defined() && input.is_floating_point();
    const bool parameter = differentiable && input.is_leaf() && input.requires_grad();
    leaves.push_back(!differentiable || parameter ? input
                                                  : input.detach().clone().requires_grad_());
    if (differentiable) checked.push_back(leaves.back());
  }
  Tensors weights;  // one random scalar function of all outputs
  const auto scalar = [&] {
    const auto outputs = f(leaves);
    auto sum = torch::zeros({}, torch::kFloat64);
    for (size_t i = 0; i < outputs.size(); ++i) {
      if (weights.size() == i) {
        weights.push_back(torch::randn(outputs[i].sizes(), generator, torch::kFloat64));
      }
      sum = sum + (outputs[i] * weights[i]).sum();
    }
    return sum;
  };
  const auto gradients = torch::autograd::grad({scalar()}, checked);
  const torch::NoGradGuard no_grad;
  constexpr double kStep = 1e-5;
  for (size_t i = 0; i < checked.size(); ++i) {
    const auto original = checked[i].clone();
    for (int repeat = 0; repeat < 2; ++repeat) {
      const auto direction = torch::randn(original.sizes(), generator, torch::kFloat64);
      checked[i].copy_(original + kStep * direction);
      const double above = scalar().item<double>();
      checked[i].copy_(original - kStep * direction);
      const double below = scalar().item<double>();
      checked[i].copy_(original);
      const double expected = (above - below) / (2 * kStep);
      const double actual = (gradients[i] * direction).sum().item<double>();
      EXPECT_NEAR(actual, expected, tolerance * (1 + std::abs(expected)))
          << "input " << i << " of those that are differentiable, direction " << repeat;
    }
  }
}

}  // namespace tandem
