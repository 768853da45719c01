#include "nn/gated_retention_ops.h"
#include "tests/gpu.h"

// All forms on a GPU against the recurrence in float64 on the CPU.

namespace tandem {
namespace {

struct Inputs {
  Tensors floats;  // q, k, v, log_decay, initial_state
  Tensor segment, initial_segment;
};

// 61 tokens, a multiple of no chunk; documents, padding between them and behind them. Gates from
// nearly open to nearly closed.
Inputs make_inputs(bool documents, torch::Dtype dtype) {
  constexpr int64_t kB = 2, kT = 61, kH = 3, kK = 10, kV = 14;
  auto generator = seeded(17);
  const auto random = [&](at::IntArrayRef sizes) {
    return torch::randn(sizes, generator, torch::kFloat64);
  };
  Inputs in;
  // As the program has them: q, k and v in the modules' type, gates and states never below float32.
  const auto wide = float_or_wider(dtype);
  in.floats = {random({kB, kT, kH, kK}).to(dtype), random({kB, kT, kH, kK}).to(dtype),
               random({kB, kT, kH, kV}).to(dtype),
               torch::log_sigmoid(4 * random({kB, kT, kH})).to(wide),
               random({kB, kH, kK, kV}).to(wide)};
  if (!documents) return in;
  in.segment = torch::zeros({kB, kT}, torch::kInt32);
  in.segment[0].slice(0, 11, 29).fill_(1);
  in.segment[0].slice(0, 29, 33).fill_(-1);
  in.segment[0].slice(0, 33).fill_(2);
  in.segment[1].slice(0, 50).fill_(-1);
  in.initial_segment = torch::tensor({0, 4}, torch::kInt32);  // the second row's is another's
  return in;
}

Tensors moved(const Tensors& tensors, torch::Device device, std::optional<torch::Dtype> dtype) {
  Tensors result;
  for (const Tensor& x : tensors)
    result.push_back(x.to(device, dtype.value_or(x.scalar_type())).requires_grad_());
  return result;
}

struct Outcome {
  Tensor output, state;
  Tensors gradients;
};

template <typename Form>
Outcome run(const Form& form, const Tensors& in) {
  const Retention result = form(in);
  const auto weights = [&](const Tensor& x, uint64_t seed) {
    return torch::randn(x.sizes(), seeded(seed), torch::kFloat64).to(x.device(), x.scalar_type());
  };
  const Tensor sum = (result.output * weights(result.output, 5)).sum() +
                     (result.final_state * weights(result.final_state, 6)).sum();
  return {result.output, result.final_state, torch::autograd::grad({sum}, in)};
}

class RetentionGpuTest : public OnGpu<testing::TestWithParam<bool>> {
 protected:
  /// Every form within `tolerance` of the norm of each result.
  void check_forms(torch::Dtype dtype, double tolerance) {
    const Inputs in = make_inputs(GetParam(), dtype);
    const auto recurrent = [](const Inputs& at, const Tensors& x) {
      return gated_retention_recurrent(x[0], x[1], x[2], x[3], at.segment, x[4],
                                       at.initial_segment);
    };
    const Outcome expected = run([&](const Tensors& x) { return recurrent(in, x); },
                                 moved(in.floats, torch::kCPU, torch::kFloat64));
    Inputs there = in;
    if (GetParam()) {
      there.segment = in.segment.to(gpu_);
      there.initial_segment = in.initial_segment.to(gpu_);
    }
    const auto check = [&](const std::string& name, const auto& form) {
      SCOPED_TRACE(name);
      const Outcome actual = run(form, moved(in.floats, gpu_, std::nullopt));
      expect_close_in_norm(actual.output, expected.output, tolerance);
      expect_close_in_norm(actual.state, expected.state, tolerance);
      for (size_t i = 0; i < in.floats.size(); ++i) {
        SCOPED_TRACE("gradient of input " + std::to_string(i));
        expect_close_in_norm(actual.gradients[i], expected.gradients[i], tolerance);
      }
    };
    for (const int64_t chunk : {1, 7, 16, 64}) {
      check("chunks of " + std::to_string(chunk), [&](const Tensors& x) {
        return gated_retention(x[0], x[1], x[2], x[3], there.segment, x[4], there.initial_segment,
                               chunk);
      });
    }
    check("parallel", [&](const Tensors& x) {
      return gated_retention_parallel(x[0], x[1], x[2], x[3], there.segment, x[4],
                                      there.initial_segment);
    });
    check("recurrent", [&](const Tensors& x) { return recurrent(there, x); });
  }
};

TEST_P(RetentionGpuTest, Float64) { check_forms(torch::kFloat64, 1e-12); }

TEST_P(RetentionGpuTest, Float32) { check_forms(torch::kFloat32, 1e-5); }

// Rounded to bfloat16 are decays, scores, states on their way into products, and what these give:
// up to six roundings of 2^-8 follow one another, which by chance add up to less in norm.
TEST_P(RetentionGpuTest, Bfloat16) { check_forms(torch::kBFloat16, 6 * kBfloat16Rounding); }

TEST_P(RetentionGpuTest, GradientsHaveTheSameBitsAgain) {
  at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/false);
  Inputs in = make_inputs(GetParam(), torch::kBFloat16);
  if (GetParam()) {
    in.segment = in.segment.to(gpu_);
    in.initial_segment = in.initial_segment.to(gpu_);
  }
  const auto form = [&](const Tensors& x) {
    return gated_retention(x[0], x[1], x[2], x[3], in.segment, x[4], in.initial_segment, 16);
  };
  const Tensors inputs = moved(in.floats, gpu_, std::nullopt);
  const Outcome first = run(form, inputs);
  for (int repeat = 0; repeat < 5; ++repeat) {
    const Outcome again = run(form, inputs);
    EXPECT_TRUE(same_bits(again.output, first.output));
    for (size_t i = 0; i < inputs.size(); ++i)
      EXPECT_TRUE(same_bits(again.gradients[i], first.gradients[i])) << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Rows, RetentionGpuTest, testing::Bool(),
                         [](const auto& test) { return test.param ? "OfDocuments" : "Whole"; });

}  // namespace
}  // namespace tandem
