#include <tuple>

#include "tests/gpu.h"
#include "tests/nn/attend_cases.h"

// On a GPU LibTorch chooses among its kernels by type, head size, mask and shared heads: whatever
// it chooses, the definition is what attend() gives.

namespace tandem {
namespace {

AttendMask on_device(AttendMask mask, torch::Device device) {
  for (Tensor* tensor :
       {&mask.query_index, &mask.key_lengths, &mask.query_segment, &mask.key_segment}) {
    if (tensor->defined()) *tensor = tensor->to(device);
  }
  return mask;
}

// A head of 6 fits no fused kernel, one of 12 those of float32 but not bfloat16's masked one, and
// 40 and 64 all.
class AttendGpuTest
    : public OnGpu<testing::TestWithParam<std::tuple<AttendCase, int64_t, torch::Dtype>>> {};

// In float32 sums of up to 590 products are rounded, in any order. Rounded to bfloat16 are, of a
// value: the probabilities, whose sum is 1, and the output, which each change it by at most 2^-8 of
// the largest value; of a gradient: probabilities, output, scores' gradients, a block's part and
// the sum, each by at most 2^-8, independently; in norm at most 8 such steps are allowed, as
// differences of similar numbers enlarge some.
TEST_P(AttendGpuTest, EqualsTheDefinitionInFloat64) {
  const auto& [c, head_dim, dtype] = GetParam();
  const bool narrow = dtype == torch::kBFloat16;
  auto generator = seeded(3);
  const auto random = [&, dim = head_dim, type = dtype](int64_t n_tokens, int64_t n_heads) {
    return torch::randn({kAttendBatch, n_tokens, n_heads, dim}, generator, torch::kFloat64)
        .to(type);
  };
  const Tensor q = random(c.n_queries, c.n_heads), k = random(c.n_keys, c.n_kv_heads),
               v = random(c.n_keys, c.n_kv_heads);
  const AttendMask mask = mask_of(c, generator);
  const Tensor weights =
      torch::randn({kAttendBatch, c.n_queries, c.n_heads, head_dim}, generator, torch::kFloat64)
          .to(dtype);
  Tensors wide, narrowed;
  for (const Tensor& x : {q, k, v}) {
    wide.push_back(x.to(torch::kFloat64).requires_grad_());
    narrowed.push_back(x.to(gpu_).requires_grad_());
  }
  const Tensor expected = attend_by_definition(
      wide[0], wide[1], wide[2], visible_by_definition(kAttendBatch, c.n_queries, c.n_keys, mask));
  const AttendMask device_mask = on_device(mask, gpu_);
  const Tensor actual = attend(narrowed[0], narrowed[1], narrowed[2], device_mask);
  EXPECT_EQ(actual.scalar_type(), dtype);
  const double largest = v.abs().max().item<double>();
  const double tolerance = narrow ? 2 * kBfloat16Rounding * largest : 1e-5;
  expect_close(to_host(actual), expected, tolerance);

  // Where a query sees one key, gradients of both are 0: rounding is left of what cancels.
  const double cancelling = 0.1 * weights.to(torch::kFloat64).norm().item<double>();
  const auto gradients = torch::autograd::grad({(actual * weights.to(gpu_)).sum()}, narrowed);
  const auto expected_gradients =
      torch::autograd::grad({(expected * weights.to(torch::kFloat64)).sum()}, wide);
  for (size_t i = 0; i < 3; ++i) {
    SCOPED_TRACE("gradient of input " + std::to_string(i));
    expect_close_in_norm(gradients[i], expected_gradients[i], narrow ? 8 * kBfloat16Rounding : 1e-5,
                         cancelling);
  }
  const torch::NoGradGuard no_grad;  // inference slices keys where training cuts them
  expect_close(to_host(attend(narrowed[0], narrowed[1], narrowed[2], device_mask)), expected,
               tolerance);
}

std::string name_of(const testing::TestParamInfo<AttendGpuTest::ParamType>& test) {
  const auto& [c, head_dim, dtype] = test.param;
  return std::string(c.name) + "_" + std::to_string(head_dim) + "_" + c10::toString(dtype);
}

INSTANTIATE_TEST_SUITE_P(Cases, AttendGpuTest,
                         testing::Combine(testing::ValuesIn(attend_cases()),
                                          testing::Values(6, 12, 40, 64),
                                          testing::Values(torch::kFloat32, torch::kBFloat16)),
                         name_of);

class AttendCallsGpuTest : public OnGpu<> {};

TEST_F(AttendCallsGpuTest, AQueryThatSeesNothingGivesZerosAndNoGradient) {
  for (const auto dtype : {torch::kFloat64, torch::kFloat32, torch::kBFloat16}) {
    auto generator = seeded(5);
    const auto random = [&](int64_t n, int64_t heads) {
      return torch::randn({2, n, heads, 16}, generator, torch::kFloat64)
          .to(gpu_, dtype)
          .requires_grad_();
    };
    const Tensor q = random(3, 4), k = random(5, 2), v = random(5, 2);
    const Tensor out =
        attend(q, k, v, {.key_lengths = torch::tensor({0, 4}, torch::kInt64).to(gpu_)});
    EXPECT_TRUE(out[0].eq(0).all().item<bool>());
    EXPECT_TRUE(out[1].ne(0).all().item<bool>());
    for (const auto& gradient : torch::autograd::grad({out.to(torch::kFloat64).sum()}, {q, k, v})) {
      EXPECT_TRUE(gradient[0].eq(0).all().item<bool>());
      EXPECT_TRUE(gradient[1].isfinite().all().item<bool>());
    }
  }
}

// As training runs it: kernels that sum in one order only, and none that refuses to.
TEST_F(AttendCallsGpuTest, GradientsHaveTheSameBitsAgain) {
  at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/false);
  for (const auto dtype : {torch::kFloat32, torch::kBFloat16}) {
    for (const int64_t window : {0, 40}) {
      auto generator = seeded(8);
      const auto random = [&](int64_t heads) {
        return torch::randn({3, 700, heads, 64}, generator).to(gpu_, dtype).requires_grad_();
      };
      const Tensor q = random(4), k = random(2), v = random(2);
      const auto run = [&] {
        return torch::autograd::grad({attend(q, k, v, {.window = window}).square().sum()},
                                     {q, k, v});
      };
      const auto first = run();
      for (int repeat = 0; repeat < 5; ++repeat) {
        const auto again = run();
        for (size_t i = 0; i < 3; ++i) EXPECT_TRUE(same_bits(again[i], first[i])) << i;
      }
    }
  }
}

// Rows lie along a dimension of a CUDA grid that ends at 65,535. A Block Transformer's token
// decoder has a row for each block.
TEST_F(AttendCallsGpuTest, MoreRowsThanAGridTakes) {
  constexpr int64_t kRows = 65'535 + 18;
  for (const auto dtype : {torch::kFloat32, torch::kBFloat16}) {
    const auto random = [&](uint64_t seed) {
      return torch::randn({kRows, 5, 2, 8}, seeded(seed)).to(gpu_, dtype).requires_grad_();
    };
    const Tensor q = random(1), k = random(2), v = random(3);
    Tensor segment = torch::zeros({kRows, 5}, torch::dtype(torch::kInt32).device(gpu_));
    segment.slice(1, 3).fill_(1);
    for (const AttendMask& mask :
         {AttendMask{}, AttendMask{.query_segment = segment, .key_segment = segment}}) {
      const Tensor out = attend(q, k, v, mask);
      AttendMask last = mask;
      if (mask.query_segment.defined())
        last.query_segment = last.key_segment = segment.slice(0, kRows - 40);
      const auto end = [](const Tensor& x) { return x.slice(0, kRows - 40); };
      const double tolerance = dtype == torch::kFloat32 ? 1e-6 : 2 * kBfloat16Rounding * 5;
      expect_close(end(out), attend(end(q), end(k), end(v), last), tolerance);
      for (const auto& gradient : torch::autograd::grad({out.sum()}, {q, k, v}))
        EXPECT_TRUE(gradient.isfinite().all().item<bool>());
    }
  }
}

// Keys and values of float32 under activations of bfloat16 and the other way, in long decoding.
TEST_F(AttendCallsGpuTest, ADecodeStepConvertsALongCache) {
  const torch::NoGradGuard no_grad;
  for (const auto& [activations, cache] :
       {std::pair{torch::kFloat32, torch::kBFloat16}, {torch::kBFloat16, torch::kFloat32}}) {
    const Tensor q = torch::randn({3, 1, 6, 16}, seeded(41)).to(activations),
                 k = torch::randn({3, 2611, 2, 16}, seeded(42)).to(cache),
                 v = torch::randn({3, 2611, 2, 16}, seeded(43)).to(cache);
    AttendMask ragged;
    ragged.key_lengths = torch::tensor({7, 2611, 0}, torch::kInt64);
    ragged.query_index = torch::tensor({6, 2610, 0}, torch::kInt64).unsqueeze(1);
    for (const AttendMask& mask : {AttendMask{}, ragged}) {
      const Tensor expected =
          attend_by_definition(q.to(torch::kFloat64), k.to(torch::kFloat64), v.to(torch::kFloat64),
                               visible_by_definition(3, 1, 2611, mask));
      const Tensor actual = attend(q.to(gpu_), k.to(gpu_), v.to(gpu_), on_device(mask, gpu_));
      // With a narrow query keys, values, probabilities and the output are rounded.
      const double tolerance = activations == torch::kFloat32
                                   ? 1e-5
                                   : 4 * kBfloat16Rounding * v.abs().max().item<double>();
      expect_close(to_host(actual), expected, tolerance);
    }
  }
}

}  // namespace
}  // namespace tandem
