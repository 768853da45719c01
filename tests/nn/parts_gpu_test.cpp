#include "nn/cross_entropy.h"
#include "nn/device_sampler.h"
#include "nn/language_model.h"
#include "nn/norm.h"
#include "nn/peak_memory.h"
#include "nn/rope.h"
#include "nn/swiglu.h"
#include "tests/gpu.h"

// The small parts that have another path or other kernels on a GPU, against float64 on the CPU.

namespace tandem {
namespace {

class PartsGpuTest : public OnGpu<> {
 protected:
  /// f's output and the gradients of its inputs, for which it may put parameters in place: in
  /// `dtype` on the GPU, from the same rounded inputs as in float64 here.
  void check(const std::function<Tensor(Tensors&)>& f, const Tensors& inputs, torch::Dtype dtype,
             double tolerance) {
    const auto run = [&](torch::Device device, torch::Dtype type) {
      Tensors leaves;
      for (const Tensor& x : inputs) {
        leaves.push_back(x.to(dtype).to(device, type).requires_grad_());
      }
      const Tensor y = f(leaves);
      const Tensor weights = torch::randn(y.sizes(), seeded(9), torch::kFloat64)
                                 .to(dtype)
                                 .to(y.device(), y.scalar_type());
      Tensors results = {y};
      for (const auto& gradient : torch::autograd::grad({(y * weights).sum()}, leaves))
        results.push_back(gradient);
      return results;
    };
    const Tensors expected = run(torch::kCPU, torch::kFloat64), actual = run(gpu_, dtype);
    ASSERT_EQ(actual.size(), expected.size());
    for (size_t i = 0; i < actual.size(); ++i) {
      SCOPED_TRACE(i == 0 ? "output" : "gradient " + std::to_string(i - 1));
      expect_close_in_norm(actual[i], expected[i], tolerance);
    }
  }
  /// In all three types. Of bfloat16 a part may round its output and one number on the way.
  void check_types(const std::function<Tensor(Tensors&)>& f, const Tensors& inputs) {
    for (const auto& [dtype, tolerance] : {std::pair{torch::kFloat64, 1e-13},
                                           {torch::kFloat32, 2e-6},
                                           {torch::kBFloat16, 2 * kBfloat16Rounding}}) {
      SCOPED_TRACE(c10::toString(dtype));
      check(f, inputs, dtype, tolerance);
    }
  }
  /// A parameter, given these values.
  static Tensor filled(torch::nn::Module& module, const std::string& name, const Tensor& values) {
    Tensor parameter = module.named_parameters()[name];
    materialise(parameter, values.detach());
    return parameter;
  }
  static Tensor random(at::IntArrayRef sizes, uint64_t seed) {
    return torch::randn(sizes, seeded(seed), torch::kFloat64);
  }
};

TEST_F(PartsGpuTest, RmsNorm) {
  check_types([](Tensors& in) { return rms_norm(in[0], 1e-5); }, {random({5, 7, 22}, 1)});
  const auto weighted = [](Tensors& in) {
    RmsNorm norm(22, 1e-5);
    in[1] = filled(*norm, "weight", in[1]);
    return norm->forward(in[0]);
  };
  check_types(weighted, {random({5, 7, 22}, 2), 1 + random({22}, 3)});
}

TEST_F(PartsGpuTest, LayerNorm) {
  const auto norm = [](Tensors& in) {
    LayerNorm layer(22, 1e-5);
    in[1] = filled(*layer, "weight", in[1]);
    in[2] = filled(*layer, "bias", in[2]);
    return layer->forward(in[0]);
  };
  check_types(norm, {random({5, 7, 22}, 4), 1 + random({22}, 5), random({22}, 6)});
}

TEST_F(PartsGpuTest, SwiGlu) {
  check_types([](Tensors& in) { return swiglu(in[0], in[1]); },
              {random({3, 5, 29}, 7), random({3, 5, 29}, 8)});
}

TEST_F(PartsGpuTest, RotaryPositions) {
  const Tensor positions = torch::tensor({0, 1, 7, 1000, 65'000}, torch::kInt64).unsqueeze(0);
  for (const char* pairs : {"interleaved", "halves"}) {
    SCOPED_TRACE(pairs);
    RopeConfig config;
    config.pairs = pairs;
    config.fraction = 0.5;
    // The angles are made on each device in float32 unless x is float64, so compare like with like:
    // float32 phases of 65,000 differ from exact ones by up to 65,000 * 2^-24.
    for (const auto& [dtype, tolerance] :
         {std::pair{torch::kFloat32, 1e-5}, {torch::kBFloat16, kBfloat16Rounding}}) {
      const Tensor x = random({1, 5, 3, 12}, 11).to(dtype);
      const Tensor here = apply_rope(x, make_rope_table(config, 12, positions, dtype), config);
      const Tensor there =
          apply_rope(x.to(gpu_), make_rope_table(config, 12, positions.to(gpu_), dtype), config);
      expect_close_in_norm(there, here, tolerance);
    }
  }
}

TEST_F(PartsGpuTest, CrossEntropy) {
  Tensor targets = torch::randint(0, 37, {3, 11}, seeded(12), torch::kInt64);
  targets.masked_fill_(torch::rand({3, 11}, seeded(13)) < 0.3, kIgnored);
  const Tensor weights = torch::rand({3, 11}, seeded(14));
  for (const bool strict : {false, true}) {  // as scoring runs it, and as training does
    at::globalContext().setDeterministicAlgorithms(strict, /*warn_only=*/false);
    for (const int64_t chunk : {4, 100}) {
      for (const bool weighted : {false, true}) {
        const auto sum = [&](Tensors& in) {
          return cross_entropy(in[0], in[1], targets.to(in[0].device()),
                               weighted ? weights.to(in[0].device()) : Tensor(), chunk)
              .sum;
        };
        check_types(sum, {random({3, 11, 22}, 15), random({37, 22}, 16)});
      }
    }
  }
  const auto nll = token_nll(random({3, 11, 22}, 15).to(gpu_), random({37, 22}, 16).to(gpu_),
                             targets.to(gpu_), 4);
  EXPECT_TRUE(torch::equal(nll.isnan().cpu(), targets == kIgnored));
}

// Products of float32 are not rounded to TensorFloat-32, which has 10 bits behind the point.
TEST_F(PartsGpuTest, ProductsOfFloat32KeepTheirBits) {
  const Tensor a = torch::full({64, 64}, 1 + 0x1p-13, torch::dtype(torch::kFloat32).device(gpu_));
  const Tensor product = at::linear(a, torch::eye(64, a.options()));
  EXPECT_TRUE(torch::equal(product, a));
}

TEST_F(PartsGpuTest, TheSamplerDrawsTheIdsOfTheCpu) {
  const Tensor logits = random({40, 53}, 21).to(torch::kFloat32);
  for (const SamplingConfig& config :
       {SamplingConfig{.temperature = 0}, SamplingConfig{.seed = 3},
        SamplingConfig{.temperature = 0.7, .top_k = 5, .seed = 4},
        SamplingConfig{.temperature = 1.3, .top_p = 0.8, .seed = 5},
        SamplingConfig{.top_k = 20, .top_p = 0.9, .seed = 6, .forbidden = {0, 7}}}) {
    DeviceSampler here(config, 40, torch::kCPU), there(config, 40, gpu_);
    for (int call = 0; call < 300; ++call) {  // more than are drawn ahead
      const Tensor ids = there.sample(logits.to(gpu_));
      EXPECT_TRUE(ids.is_cuda());
      ASSERT_TRUE(torch::equal(ids.cpu(), here.sample(logits))) << call;
    }
  }
}

// The allocator may give a large tensor a block that is up to 2 MiB larger.
TEST_F(PartsGpuTest, MemoryIsCounted) {
  constexpr int64_t kElements = 10'000'001;
  PeakMemory memory(gpu_);
  EXPECT_EQ(memory.growth_bytes(), 0);
  {
    const Tensor large = torch::empty({kElements}, torch::dtype(torch::kFloat32).device(gpu_));
    EXPECT_GE(*memory.growth_bytes(), 4 * kElements);
    EXPECT_LE(*memory.growth_bytes(), 4 * kElements + (2 << 20));
  }
  EXPECT_GE(*memory.growth_bytes(), 4 * kElements);  // the highest so far
  EXPECT_EQ(PeakMemory(gpu_).before_bytes(), memory.before_bytes());
  EXPECT_GE(*memory.reserved_bytes(), 4 * kElements);
}

}  // namespace
}  // namespace tandem
