#include <cmath>

#include "cli/load_model.h"
#include "tests/comm/nccl_group.h"
#include "tests/gpu.h"
#include "tests/train/mesh_runs.h"

// Training on a GPU: the same losses as on the CPU, the same bits again, and checkpoints that do
// not say where they were made.

namespace tandem {
namespace {

class TrainerGpuTest : public OnGpu<testing::TestWithParam<std::string>> {
 protected:
  TrainOutcome train_in(const std::string& run, torch::Device device,
                        std::vector<std::string> words = {}, std::optional<int64_t> stop_at = {}) {
    TrainConfig config = mesh_config(folder_, GetParam(), with_run(std::move(words)));
    TrainOptions options;
    options.run_folder = folder_ / run;
    options.device = device;
    options.stop_at = stop_at;
    return train(config, model_factory(), options);
  }
  static std::vector<std::string> with_run(std::vector<std::string> words) {
    words.insert(words.end(), {"training.steps=8", "checkpoint.every=4", "checkpoint.keep=9",
                               "metrics.log_every=1"});
    return words;
  }
  std::vector<double> losses_of(const std::string& run) const {
    std::vector<double> losses;
    for (const auto& line : metrics_of(folder_ / run))
      if (line.contains("loss")) losses.push_back(line["loss"]);
    return losses;
  }
  std::string checkpoint(const std::string& run, int64_t step) const {
    return checkpoint_folder(folder_ / run, step);
  }
  const TempFolder folder_;
};

// The first step's loss and gradients are sums in another order. Later losses differ by more, as
// Adam divides by what may be rounding noise.
TEST_P(TrainerGpuTest, StepsInFloat32AreTheCpus) {
  const TrainConfig config = mesh_config(folder_, GetParam());
  const MeshRun here = train_alone(config, 4, torch::kFloat32),
                there = train_alone(config, 4, torch::kFloat32, gpu_);
  EXPECT_NEAR(there.losses[0], here.losses[0], 1e-5 * here.losses[0]);
  EXPECT_NEAR(there.grad_norms[0], here.grad_norms[0], 1e-4 * here.grad_norms[0]);
  for (size_t step = 1; step < 4; ++step)
    EXPECT_NEAR(there.losses[step], here.losses[step], 1e-3 * here.losses[step]) << step;
  double all = 0;
  for (const auto& part : here.parts) all += part.gradient.square().sum().item<double>();
  ASSERT_EQ(there.parts.size(), here.parts.size());
  for (size_t i = 0; i < here.parts.size(); ++i) {
    SCOPED_TRACE(here.info[here.parts[i].parameter].name);
    EXPECT_TRUE(there.parts[i].gradient.is_cuda());
    expect_close_in_norm(there.parts[i].gradient, here.parts[i].gradient, 1e-4,
                         /*floor=*/0.01 * std::sqrt(all));
  }
}

TEST_P(TrainerGpuTest, LossesFallInBothTypesAsOnTheCpu) {
  train_in("cpu", torch::kCPU);
  const std::vector<double> expected = losses_of("cpu");
  ASSERT_EQ(expected.size(), 8u);
  for (const char* dtype : {"float32", "bfloat16"}) {
    SCOPED_TRACE(dtype);
    EXPECT_EQ(train_in(dtype, gpu_, {std::string("training.dtype=") + dtype}).exit_code, 0);
    const std::vector<double> losses = losses_of(dtype);
    ASSERT_EQ(losses.size(), expected.size());
    EXPECT_LT(losses.back(), losses.front() - 0.2);
    // A loss near ln 259 = 5.6 whose logits are rounded by 2^-8 of their size, about 1, is off by
    // less than 2^-8; eight steps of Adam on rounded gradients make up to ten times that.
    for (size_t i = 0; i < losses.size(); ++i)
      EXPECT_NEAR(losses[i], expected[i], i == 0 ? 0x1p-8 : 10 * 0x1p-8) << i;
  }
}

TEST_P(TrainerGpuTest, ResumingGivesTheBitsOfNeverHavingStopped) {
  for (const std::string dtype : {"float32", "bfloat16"}) {
    for (const std::string recompute : {"none", "layers"}) {
      SCOPED_TRACE(dtype + ", recompute " + recompute);
      const std::vector<std::string> words = {"training.dtype=" + dtype,
                                              "training.recompute=" + recompute};
      const std::string whole = "whole-" + dtype + recompute, cut = "cut-" + dtype + recompute;
      EXPECT_EQ(train_in(whole, gpu_, words).exit_code, 0);
      EXPECT_EQ(train_in(cut, gpu_, words, /*stop_at=*/3).step, 3);
      EXPECT_EQ(train_in(cut, gpu_, words, /*stop_at=*/5).step, 5);
      EXPECT_EQ(train_in(cut, gpu_, words).exit_code, 0);
      EXPECT_EQ(losses_of(cut), losses_of(whole));
      for (const int64_t step : {4, 8}) {
        const auto expected = bytes_of_folder(checkpoint(whole, step));
        EXPECT_TRUE(bytes_of_folder(checkpoint(cut, step)) == expected) << "step " << step;
        EXPECT_FALSE(expected.empty());
      }
    }
  }
}

TEST_P(TrainerGpuTest, CheckpointsGoFromDeviceToDevice) {
  for (const bool from_gpu : {true, false}) {
    SCOPED_TRACE(from_gpu ? "from the GPU" : "from the CPU");
    const std::string run = from_gpu ? "from_gpu" : "from_cpu";
    const torch::Device first = from_gpu ? gpu_ : torch::Device(torch::kCPU),
                        then = from_gpu ? torch::Device(torch::kCPU) : gpu_;
    EXPECT_EQ(train_in(run, first, {}, /*stop_at=*/4).step, 4);
    const Checkpoint saved(checkpoint(run, 4));
    for (const auto device : {torch::Device(torch::kCPU), gpu_}) {
      const LoadedModel loaded = load_model(folder_ / run, device, torch::kFloat32);
      for (const auto& parameter : loaded.model->named_parameters()) {
        EXPECT_EQ(parameter.value().device(), device);
        EXPECT_TRUE(same_bits(parameter.value(), saved.weight(parameter.key()))) << parameter.key();
      }
    }
    EXPECT_EQ(train_in(run, then).exit_code, 0);
    EXPECT_EQ(losses_of(run).size(), 8u);
  }
  const auto a = losses_of("from_gpu"), b = losses_of("from_cpu");
  for (size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], 1e-3 * b[i]) << i;
}

/// All groups that a run on GPUs has there, each of one rank on NCCL.
Mesh nccl_mesh(torch::Device device) {
  Mesh mesh = single_process_mesh();
  for (const auto& [name, group] : {std::pair{"data", &mesh.data},
                                    {"tensor", &mesh.tensor},
                                    {"sequence", &mesh.sequence},
                                    {"gradient", &mesh.gradient},
                                    {"shard", &mesh.shard},
                                    {"replica", &mesh.replica},
                                    {"world", &mesh.world}})
    *group = make_nccl_group(name, device, mesh.traffic);
  return mesh;
}

TEST_P(TrainerGpuTest, OneRankOnNcclIsOneProcessAtEveryLevelOfSharding) {
  const MeshRun expected = train_alone(mesh_config(folder_, GetParam()), 3, torch::kFloat32, gpu_);
  for (const std::string level : {"none", "optimizer", "gradients", "parameters"}) {
    SCOPED_TRACE(level);
    const TrainConfig config = mesh_config(folder_, GetParam(), {"parallelism.shard=" + level});
    Mesh mesh = nccl_mesh(gpu_);
    const MeshRun actual = train_on(mesh, config, 3, torch::kFloat32, gpu_);
    EXPECT_EQ(actual.losses, expected.losses);
    EXPECT_EQ(actual.grad_norms, expected.grad_norms);
    ASSERT_EQ(actual.parts.size(), expected.parts.size());
    for (size_t i = 0; i < expected.parts.size(); ++i)
      EXPECT_TRUE(same_bits(actual.parts[i].master, expected.parts[i].master)) << i;
    for (auto* group : {&mesh.data, &mesh.tensor, &mesh.sequence, &mesh.gradient, &mesh.shard,
                        &mesh.replica, &mesh.world})
      shut_down(**group);
  }
}

std::vector<std::string> names_of_models() {
  std::vector<std::string> names;
  for (const auto& [name, yaml] : mesh_models()) names.push_back(name);
  return names;
}

INSTANTIATE_TEST_SUITE_P(Families, TrainerGpuTest, testing::ValuesIn(names_of_models()),
                         [](const auto& test) { return test.param; });

}  // namespace
}  // namespace tandem
