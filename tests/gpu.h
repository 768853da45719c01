#pragma once
#include <ATen/Context.h>
#include <gtest/gtest.h>

#include <optional>

#include "tests/nn/helpers.h"

// What tests on a GPU share. Their suites are named *GpuTest; ctest -L gpu and
// scripts/gpu_check.sh run them.

namespace tandem {

/// Half of bfloat16's spacing at 1: what rounding to it changes at most, relatively.
inline constexpr double kBfloat16Rounding = 0x1p-8;

/// The GPU that tests use; none where there is none.
std::optional<torch::Device> gpu_of_tests();

/// `Base`, whose tests are skipped where there is no GPU. What training sets for its whole process
/// ends with each test.
template <typename Base = testing::Test>
class OnGpu : public Base {
 protected:
  void SetUp() override {
    if (!gpu_of_tests()) GTEST_SKIP() << "no CUDA device";
    Base::SetUp();
  }
  void TearDown() override {
    at::globalContext().setDeterministicAlgorithms(false, /*warn_only=*/false);
    Base::TearDown();
  }
  const torch::Device gpu_ = gpu_of_tests().value_or(torch::kCPU);
};

inline Tensor to_host(const Tensor& x) { return x.detach().to(torch::kCPU, torch::kFloat64); }

/// |actual - expected| <= tolerance * (|expected| + floor) in the norms of whole tensors, which are
/// on any device. NaN on either side fails.
inline void expect_close_in_norm(const Tensor& actual, const Tensor& expected, double tolerance,
                                 double floor = 0) {
  ASSERT_TRUE(actual.defined() && expected.defined());
  ASSERT_EQ(actual.sizes(), expected.sizes());
  const Tensor reference = to_host(expected);
  const double difference = (to_host(actual) - reference).norm().item<double>();
  EXPECT_LE(difference, tolerance * (reference.norm().item<double>() + floor));
}

/// The same bits, whatever the devices.
inline bool same_bits(const Tensor& a, const Tensor& b) {
  return a.dtype() == b.dtype() && torch::equal(a.detach().cpu(), b.detach().cpu());
}

}  // namespace tandem
