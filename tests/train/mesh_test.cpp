#include <gtest/gtest.h>

#include <cmath>

#include "tests/nn/helpers.h"
#include "tests/train/mesh_runs.h"
#include "train/gathering_runner.h"
#include "train/mesh_cost.h"

namespace tandem {
namespace {

struct Case {
  const char* name;
  const char* model;
  int64_t world;
  std::vector<std::string> words;
};

std::vector<std::string> sharded(const std::string& level, const std::vector<std::string>& more = {}) {
  std::vector<std::string> words = {"parallelism.shard=" + level};
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

const std::vector<Case>& cases() {
  static const std::vector<Case> all = {
      {"data_3", "transformer", 3, {}},
      {"data_4_blocks", "block_transformer", 4, {}},
      {"optimizer_2", "yoco", 2, sharded("optimizer")},
      {"optimizer_4_neox", "gpt_neox", 4, sharded("optimizer")},
      {"gradients_3", "yoco_swa", 3, sharded("gradients")},
      {"gradients_4_hybrid", "transformer", 4, sharded("gradients", {"parallelism.replicate=2"})},
      {"parameters_2", "yoco", 2, sharded("parameters")},
      {"parameters_3_blocks", "block_transformer", 3, sharded("parameters")},
      {"parameters_4_recompute", "transformer", 4, sharded("parameters", {"training.recompute=layers"})},
      {"parameters_4_hybrid", "yoco", 4, sharded("parameters", {"parallelism.replicate=2"})},
      {"optimizer_4_hybrid", "gpt_neox", 4, sharded("optimizer", {"parallelism.replicate=2"})},
      {"tensor_2", "transformer", 2, {"parallelism.tensor=2"}},
      {"tensor_2_data_2", "yoco", 4, {"parallelism.tensor=2"}},
      {"tensor_2_blocks", "block_transformer", 2, {"parallelism.tensor=2"}},
      {"tensor_4_neox", "gpt_neox", 4, {"parallelism.tensor=4"}},
      {"tensor_2_parameters_2", "yoco_swa", 4, sharded("parameters", {"parallelism.tensor=2"})},
      {"tensor_2_optimizer_2_recompute", "transformer", 4, sharded("optimizer", {"parallelism.tensor=2", "training.recompute=layers"})},
      {"sequence_4", "yoco", 4, {"parallelism.sequence=4"}},
      {"sequence_3_swa", "yoco_swa", 3, {"parallelism.sequence=3"}},
      {"sequence_2_data_2", "yoco", 4, {"parallelism.sequence=2"}},
      {"sequence_2_parameters_4", "yoco_swa", 4, sharded("parameters", {"parallelism.sequence=2"})},
      {"sequence_2_tensor_2_data_2", "yoco", 8, sharded("gradients", {"parallelism.sequence=2", "parallelism.tensor=2", "training.recompute=layers"})},
  };
  return all;
}

struct MeshTest : testing::TestWithParam<Case> {
  TempFolder folder_;
};
using MeshSlowTest = MeshTest;

TEST_P(MeshSlowTest, TwentyStepsEqualOneProcess) {
  const Case& c = GetParam();
  const TrainConfig config = mesh_config(folder_, c.model, c.words);
  const MeshRun alone = train_alone(config, 20, torch::kFloat64);
  for_each_rank(config, c.world, 20, torch::kFloat64, [&](const MeshRun& run, const Mesh&) {
    for (size_t step = 0; step < 20; ++step) {
      EXPECT_NEAR(run.losses[step], alone.losses[step], 1e-10) << "step " << step;
      EXPECT_NEAR(run.grad_norms[step], alone.grad_norms[step], 1e-10) << "step " << step;
    }
    ASSERT_FALSE(run.parts.empty());
    for (const OwnedPart& part : run.parts) {
      const ParameterInfo& info = run.info[part.parameter];
      SCOPED_TRACE(info.name);
      const OwnedPart& whole = alone.parts[part.parameter];
      expect_close(part.gradient.flatten(), elements_of(part, info, whole.gradient), 1e-10);
      expect_close(part.master.flatten(), elements_of(part, info, whole.master), 1e-10);
    }
  });
}

TEST_P(MeshTest, InFloat32LossesAndFirstGradientsAreClose) {
  const Case& c = GetParam();
  const TrainConfig config = mesh_config(folder_, c.model, c.words);
  const MeshRun alone = train_alone(config, 3, torch::kFloat32);
  for_each_rank(config, c.world, 3, torch::kFloat32, [&](const MeshRun& run, const Mesh&) {
    EXPECT_NEAR(run.losses[0] / alone.losses[0], 1, 1e-6);
    for (const OwnedPart& part : run.parts) {
      const ParameterInfo& info = run.info[part.parameter];
      const Tensor whole = alone.parts[part.parameter].gradient;
      const double error = (part.gradient.flatten() - elements_of(part, info, whole)).norm().item<double>();
      EXPECT_LE(error, 1e-5 * whole.norm().item<double>()) << info.name;
    }
  });
}

TEST_P(MeshTest, SharingSendsWhatTheFormulaSays) {
  const Case& c = GetParam();
  const TrainConfig config = mesh_config(folder_, c.model, c.words);
  for_each_rank(config, c.world, 2, torch::kFloat64, [&](const MeshRun& run, const Mesh& mesh) {
    const auto model = model_factory().build(config.model);
    split_over(*model, *mesh.tensor);
    ShardingOptions options = sharding_options(config);
    options.dtype = options.master_dtype = torch::kFloat64;
    options.bucket_elements = 300;
    const MeshCost cost = mesh_cost(*model, mesh.shape, options, share_of(12, mesh).n);
    std::map<std::string, double> sent;  // of the groups that share weights and gradients
    for (const auto& [key, bytes] : run.sent) {
      if (key.starts_with("shard.") || key.starts_with("replica.")) sent[key] = bytes;
    }
    std::map<std::string, double> expected(cost.sent.begin(), cost.sent.end());
    // The gradient norm: one number from each rank of a shard group.
    if (mesh.shard->size() > 1) expected["shard.all_gather"] += 8.0 * static_cast<double>(mesh.shard->size() - 1);
    ASSERT_EQ(sent.size(), expected.size());
    for (const auto& [key, bytes] : expected) EXPECT_NEAR(sent[key], bytes, 1e-6 * bytes) << key;
  });
}

INSTANTIATE_TEST_SUITE_P(Meshes, MeshSlowTest, testing::ValuesIn(cases()), [](const auto& each) { return each.param.name; });
INSTANTIATE_TEST_SUITE_P(Meshes, MeshTest, testing::ValuesIn(cases()), [](const auto& each) { return each.param.name; });

TEST(MeshMemoryTest, RanksHoldWhatTheFormulaSaysAndLayersAreFreed) {
  const TempFolder folder;
  for (const char* level : {"none", "optimizer", "gradients", "parameters"}) {
    for (const auto dtype : {torch::kFloat32, torch::kBFloat16}) {
      SCOPED_TRACE(level);
      const TrainConfig config = mesh_config(folder, "yoco", sharded(level));
      run_mesh(mesh_shape(shard_level(level), 4, 1, 1, 1), [&](Mesh& mesh, int64_t) {
        tandem::Run run;
        run.mesh = &mesh;
        run.model = model_factory().build(config.model);
        ShardingOptions options = sharding_options(config);
        options.dtype = dtype;
        const MeshCost cost = mesh_cost(*run.model, mesh.shape, options, 3);
        make_trainable(run, config, options, random_weights(3));
        const auto held = run.optimizer->sharding().held();
        EXPECT_EQ(static_cast<double>(held.weights), cost.weight_bytes);
        EXPECT_EQ(static_cast<double>(held.gradients), cost.gradient_bytes);
        EXPECT_EQ(static_cast<double>(held.masters), cost.master_bytes);

        // While layers run, at most two of them are there.
        struct Watching final : LayerRunner {
          Sharding& sharding;
          int64_t most = 0;
          explicit Watching(Sharding& watched) : sharding(watched) {}
          Tensors run(torch::nn::Module&, const Tensors& inputs, const LayerFunction& f) override {
            most = std::max(most, sharding.held().weights);
            return f(inputs);
          }
        };
        if (options.level != ShardLevel::kParameters) return;
        auto watching = std::make_unique<Watching>(run.optimizer->sharding());
        const Watching& watched = *watching;
        GatheringRunner runner(run.optimizer->sharding(), std::move(watching));
        ForwardContext context;
        context.runner = &runner;
        const auto sampler = make_sampler(config, run.model->packing());
        const Batch batch = make_batch(std::vector<Row>{sampler->row(0), sampler->row(1)}, torch::kCPU);
        for (int pass = 0; pass < 2; ++pass) {  // the second one knows what to gather ahead
          run.optimizer->sharding().begin_backward(true);
          run.model->loss(batch, context).sum.backward();
          run.optimizer->sharding().end_backward();
          EXPECT_GT(static_cast<double>(watched.most), cost.weight_bytes);
          EXPECT_LE(static_cast<double>(watched.most), cost.weight_bytes + cost.gathered_bytes);
          EXPECT_EQ(run.optimizer->sharding().held().weights, held.weights);
        }
      });
    }
  }
}

TEST(ElasticTest, AnyNumberOfRanksGivesTheSameBits) {
  const TempFolder folder;
  for (const char* model : {"yoco", "block_transformer"}) {
    const TrainConfig config = mesh_config(folder, model, {"training.deterministic=elastic", "training.tokens_per_step=528"});  // 11 micro-batches
    at::set_num_threads(1);
    const MeshRun alone = train_alone(config, 5, torch::kFloat32);
    for (const int64_t world : {2, 4, 8, 3, 6}) {
      for_each_rank(config, world, 5, torch::kFloat32, [&](const MeshRun& run, const Mesh&) {
        EXPECT_EQ(run.losses, alone.losses) << world;
        EXPECT_EQ(run.grad_norms, alone.grad_norms) << world;
        for (const OwnedPart& part : run.parts) EXPECT_TRUE(torch::equal(part.master, alone.parts[part.parameter].master)) << world;
      });
    }
  }
}

}  // namespace
}  // namespace tandem
