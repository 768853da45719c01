#include "train/optimizer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/data/temp_folder.h"
#include "tests/nn/helpers.h"

namespace tandem {
namespace {

/// A matrix, which decays, and a vector, which does not.
class TwoParameters : public Module {
 public:
  TwoParameters() {
    matrix = declare(*this, "matrix", {5, 3}, init_normal(1));
    vector = declare(*this, "vector", {7}, init_constant(1), Split::kNone, /*decay=*/false);
  }
  Tensor loss(const Tensor& x, const Tensor& y) const {
    return (matrix * x).sum() + (vector * y).sum();
  }
  Tensor matrix, vector;
};

OptimizerConfig config_of(double clip_norm) {
  OptimizerConfig config;
  config.betas = {0.8, 0.97};
  config.eps = 1e-6;
  config.weight_decay = 0.3;
  config.clip_norm = clip_norm;
  return config;
}

CheckpointContents snapshot_of(const Optimizer& optimizer) {
  CheckpointContents contents;
  optimizer.snapshot(contents);
  return contents;
}

Tensors tensors_of(const CheckpointContents& contents) {
  Tensors tensors;
  for (const auto& piece : contents.weights) tensors.push_back(piece.data);
  for (const auto& piece : contents.optimizer) tensors.push_back(piece.data);
  return tensors;
}

Tensor flat(const Tensor& tensor) { return tensor.detach().to(torch::kFloat64).flatten().clone(); }

/// AdamW element by element, as algorithm 2 of Loshchilov and Hutter has it with the schedule's
/// factor in `lr`.
struct SlowAdamW {
  OptimizerConfig config;
  Tensor w, m = torch::zeros_like(w), v = torch::zeros_like(w);
  double weight_decay;
  void step(const Tensor& g, double lr, int64_t t) {
    const double b1 = config.betas[0], b2 = config.betas[1];
    auto wa = w.accessor<double, 1>(), ma = m.accessor<double, 1>(), va = v.accessor<double, 1>();
    const auto ga = g.accessor<double, 1>();
    for (int64_t i = 0; i < w.numel(); ++i) {
      ma[i] = b1 * ma[i] + (1 - b1) * ga[i];
      va[i] = b2 * va[i] + (1 - b2) * ga[i] * ga[i];
      const double m_hat = ma[i] / (1 - std::pow(b1, t)), v_hat = va[i] / (1 - std::pow(b2, t));
      wa[i] -= lr * (m_hat / (std::sqrt(v_hat) + config.eps) + weight_decay * wa[i]);
    }
  }
};

void expect_slow_adamw(torch::Dtype dtype, double clip_norm, double tolerance) {
  TwoParameters model;
  materialise_random(model, 3, dtype);
  const OptimizerConfig config = config_of(clip_norm);
  SlowAdamW matrix{.config = config, .w = flat(model.matrix), .weight_decay = 0.3};
  SlowAdamW vector{.config = config, .w = flat(model.vector), .weight_decay = 0};
  Optimizer optimizer(model, dtype, config);
  auto generator = seeded(11);
  for (int64_t t = 1; t <= 20; ++t) {
    const Tensor x = torch::randn({5, 3}, generator, dtype),
                 y = torch::randn({7}, generator, dtype);
    optimizer.zero_gradients();
    const Tensor loss = model.loss(x, y);
    loss.backward();
    const double lr = 0.1 / static_cast<double>(t);
    const StepOutcome outcome = optimizer.step(lr, loss.detach());

    const double norm =
        std::sqrt(flat(x).square().sum().item<double>() + flat(y).square().sum().item<double>());
    EXPECT_NEAR(outcome.grad_norm.item<double>(), norm, 1e-6 * norm);
    EXPECT_EQ(outcome.skipped.item<float>(), 0);
    const double scale = clip_norm > 0 ? std::min(1.0, clip_norm / norm) : 1;
    matrix.step(flat(x) * scale, lr, t);
    vector.step(flat(y) * scale, lr, t);
  }
  EXPECT_EQ(optimizer.steps_taken(), 20);
  expect_close(flat(model.matrix), matrix.w, tolerance);
  expect_close(flat(model.vector), vector.w, tolerance);
}

TEST(OptimizerTest, EqualsASlowAdamW) {
  expect_slow_adamw(torch::kFloat64, 0, 1e-12);
  expect_slow_adamw(torch::kFloat64, 1.5, 1e-12);  // norms are about 4.7
  expect_slow_adamw(torch::kFloat32, 1.5, 2e-6);
}

TEST(OptimizerTest, GradientsAddUpOutsideTheParameters) {
  TwoParameters model;
  materialise_random(model, 3);
  Optimizer optimizer(model, torch::kFloat64, config_of(0));
  auto generator = seeded(4);
  const Tensor x = torch::randn({5, 3}, generator, torch::kFloat64),
               y = torch::randn({7}, generator, torch::kFloat64);
  model.loss(x, y).backward();
  model.loss(2 * x, y).backward();
  EXPECT_FALSE(model.matrix.grad().defined());
  expect_close(optimizer.main_gradients()[0], 3 * x, 1e-14);
  expect_close(optimizer.main_gradients()[1], 2 * y, 1e-14);
  optimizer.zero_gradients();
  expect_close(optimizer.main_gradients()[0], torch::zeros_like(x), 0);
}

TEST(OptimizerTest, ABfloat16ModuleHoldsTheMastersRounded) {
  TwoParameters model;
  materialise_random(model, 3, torch::kFloat32);
  const Tensor before = model.matrix.detach().clone();
  Optimizer optimizer(model, torch::kBFloat16, config_of(0));
  EXPECT_EQ(model.matrix.scalar_type(), torch::kBFloat16);
  expect_close(snapshot_of(optimizer).weights[0].data, before.flatten(), 0);  // not rounded
  // 1000 updates of 1e-5 each, far below what a bfloat16 of about 1 can take up.
  for (int i = 0; i < 1000; ++i) {
    optimizer.zero_gradients();
    const Tensor loss =
        model.loss(torch::ones({5, 3}, torch::kBFloat16), torch::ones({7}, torch::kBFloat16));
    loss.backward();
    optimizer.step(1e-5, loss.detach());
  }
  const CheckpointContents after = snapshot_of(optimizer);
  const Tensor master = after.weights[1].data;
  expect_close(optimizer.main_gradients()[1], torch::ones({7}), 0);
  EXPECT_EQ(optimizer.main_gradients()[1].scalar_type(), torch::kFloat32);
  ASSERT_EQ(after.optimizer[2].name, "exp_avg.vector");
  expect_close(after.optimizer[2].data, torch::ones({7}), 1e-5);
  EXPECT_TRUE(model.vector.equal(master.to(torch::kBFloat16)));
  EXPECT_FALSE(master.equal(master.to(torch::kBFloat16).to(torch::kFloat32)));
}

TEST(OptimizerTest, ABadStepChangesNothing) {
  auto generator = seeded(8);
  const Tensor x = torch::randn({5, 3}, generator, torch::kFloat32),
               y = torch::randn({7}, generator, torch::kFloat32);
  const auto train = [&](bool with_bad_steps) {
    TwoParameters model;
    materialise_random(model, 3, torch::kFloat32);
    Optimizer optimizer(model, torch::kFloat32, config_of(1));
    const auto step = [&](const Tensor& xs, std::optional<double> loss_value,
                          std::optional<double> limit = {}) {
      optimizer.zero_gradients();
      const Tensor loss = model.loss(xs, y);
      loss.backward();
      return optimizer.step(0.1, loss_value ? torch::tensor(*loss_value) : loss.detach(), limit)
          .skipped.item<float>();
    };
    EXPECT_EQ(step(x, 5.5, 5.5), 0);
    if (with_bad_steps) {
      Tensor bad = x.clone();
      bad[1][2] = std::numeric_limits<float>::quiet_NaN();
      EXPECT_EQ(step(bad, 1.0), 1);
      bad[1][2] = std::numeric_limits<float>::infinity();
      EXPECT_EQ(step(bad, 1.0), 1);
      EXPECT_EQ(step(x, std::numeric_limits<double>::infinity()), 1);
      EXPECT_EQ(step(x, std::numeric_limits<double>::quiet_NaN(), 5.5), 1);
      EXPECT_EQ(step(-3 * x, 5.75, 5.5), 1);
      EXPECT_EQ(step(3 * x, -1.0, -1.5), 1);
    }
    EXPECT_EQ(step(2 * x, {}), 0);
    EXPECT_EQ(optimizer.steps_taken(), 2);
    Tensors state = tensors_of(snapshot_of(optimizer));
    state.push_back(model.matrix.detach());
    state.push_back(model.vector.detach());
    return state;
  };
  const Tensors plain = train(false), with_bad = train(true);
  for (size_t i = 0; i < plain.size(); ++i) EXPECT_TRUE(plain[i].equal(with_bad[i])) << i;
}

TEST(OptimizerTest, TheLossLimitIsExact) {
  TwoParameters model;
  materialise_random(model, 3);
  Optimizer optimizer(model, torch::kFloat64, config_of(0));
  const auto skipped = [&](double loss, double limit) {
    return optimizer.step(0.1, torch::tensor(loss, torch::kFloat64), limit).skipped.item<float>();
  };
  EXPECT_EQ(skipped(3, 3), 0);
  EXPECT_EQ(skipped(std::nextafter(3.0, 4.0), 3), 1);
  EXPECT_EQ(skipped(3, std::nextafter(3.0, 2.0)), 1);
  EXPECT_EQ(optimizer.steps_taken(), 1);
}

/// Three matrices and two vectors under names such as models have.
class Named : public Module {
 public:
  Named() {
    for (const char* name : {"embedding", "layers_q", "layers_k"})
      parameters_.push_back(declare(*this, name, {4, 3}, init_normal(1)));
    for (const char* name : {"layers_norm", "norm"})
      parameters_.push_back(
          declare(*this, name, {5}, init_constant(1), Split::kNone, /*decay=*/false));
    materialise_random(*this, 9);
  }
  Tensors parameters_;
};

OptimizerGroupConfig group(std::vector<std::string> parameters, std::optional<double> weight_decay,
                           double lr_scale = 1) {
  return {.parameters = std::move(parameters), .weight_decay = weight_decay, .lr_scale = lr_scale};
}

TEST(OptimizerGroupsTest, EqualASlowAdamWOfTheirOwn) {
  Named model;
  OptimizerConfig config = config_of(0);
  config.groups = {group({"*_q", "embed*"}, 0.7, 0.25), group({"layers*norm"}, 0.05),
                   group({"*layers*"}, {}, 3), group({"norm"}, {}, 0)};
  const std::vector<std::pair<double, double>> expected = {
      {0.7, 0.25}, {0.7, 0.25}, {0.3, 3}, {0.05, 1}, {0, 0}};  // weight decay, scale
  std::vector<SlowAdamW> slow;
  for (size_t i = 0; i < expected.size(); ++i) {
    slow.push_back(
        {.config = config, .w = flat(model.parameters_[i]), .weight_decay = expected[i].first});
  }
  const Tensor frozen = model.parameters_[4].detach().clone();
  Optimizer optimizer(model, torch::kFloat64, config);
  auto generator = seeded(12);
  for (int64_t t = 1; t <= 12; ++t) {
    optimizer.zero_gradients();
    Tensor loss = torch::zeros({}, torch::kFloat64);
    const double lr = 0.02 * static_cast<double>(t);
    for (size_t i = 0; i < expected.size(); ++i) {
      const Tensor x = torch::randn(model.parameters_[i].sizes(), generator, torch::kFloat64);
      loss = loss + (model.parameters_[i] * x).sum();
      slow[i].step(flat(x), lr * expected[i].second, t);
    }
    loss.backward();
    optimizer.step(lr, loss.detach());
  }
  for (size_t i = 0; i < expected.size(); ++i)
    expect_close(flat(model.parameters_[i]), slow[i].w, 1e-12);
  EXPECT_TRUE(model.parameters_[4].equal(frozen));
}

TEST(OptimizerGroupsTest, APatternThatFitsNothingIsRefused) {
  Named model;
  const auto error = [&](std::vector<std::string> patterns) {
    OptimizerConfig config = config_of(0);
    config.groups = {group({"*norm"}, 0), group(std::move(patterns), 0)};
    return error_of([&] { Optimizer(model, torch::kFloat64, config); }, kExitUsage);
  };
  EXPECT_EQ(error({"embedding", "layer_q"}),
            "optimizer.groups[1].parameters: \"layer_q\" fits no parameter of the model; did you "
            "mean \"layers_q\"?");
  EXPECT_EQ(error({"*embeding"}),
            "optimizer.groups[1].parameters: \"*embeding\" fits no parameter of the model; did you "
            "mean \"*embedding\"?");
  EXPECT_EQ(error({"head.*"}),
            "optimizer.groups[1].parameters: \"head.*\" fits no parameter of the model");
  EXPECT_EQ(error({"norm.weight.of.nothing"}),
            "optimizer.groups[1].parameters: \"norm.weight.of.nothing\" fits no parameter of the "
            "model");
}

TEST(OptimizerGroupsTest, AGroupWithoutEffectIsNamed) {
  Named model;
  OptimizerConfig config = config_of(0);
  config.groups = {group({"*norm"}, 0), group({"norm", "layers_norm"}, 0.1)};
  testing::internal::CaptureStderr();
  Optimizer(model, torch::kFloat64, config);
  EXPECT_EQ(testing::internal::GetCapturedStderr(),
            "warning: optimizer.groups[1] has no effect: the groups before it decide about all of "
            "its parameters\n");
}

TEST(OptimizerTest, ASnapshotIsACopyThatIsFilledAgain) {
  for (const torch::Dtype dtype : {torch::kFloat32, torch::kBFloat16}) {
    TwoParameters model;
    materialise_random(model, 3, torch::kFloat32);
    Optimizer optimizer(model, dtype, config_of(0));
    CheckpointContents contents;
    contents.step = 17;  // what is not the optimizer's stays
    const auto step = [&] {
      optimizer.zero_gradients();
      const Tensor loss =
          model.loss(torch::full({5, 3}, 0.5, dtype), torch::full({7}, 0.25, dtype));
      loss.backward();
      optimizer.step(0.1, loss.detach());
    };
    step();
    optimizer.snapshot(contents);
    const Tensors first = tensors_of(contents);
    Tensors first_values;
    std::vector<const void*> places;
    for (const Tensor& tensor : first) {
      EXPECT_EQ(tensor.scalar_type(), torch::kFloat32);
      first_values.push_back(tensor.clone());
      places.push_back(tensor.const_data_ptr());
    }
    step();
    for (size_t i = 0; i < first.size(); ++i) EXPECT_TRUE(first[i].equal(first_values[i])) << i;

    optimizer.snapshot(contents);
    const Tensors fresh = tensors_of(snapshot_of(optimizer)), again = tensors_of(contents);
    for (size_t i = 0; i < again.size(); ++i) {
      EXPECT_EQ(again[i].const_data_ptr(), places[i]) << i;
      EXPECT_TRUE(again[i].equal(fresh[i])) << i;
      EXPECT_FALSE(again[i].equal(first_values[i])) << i;
    }
    EXPECT_EQ(contents.step, 17);
  }
}

// Half the steps, a checkpoint, another process: the other half is the same bit for bit, however
// the parameters are grouped.
TEST(OptimizerGroupsTest, AreLoadedFromACheckpoint) {
  const TempFolder folder;
  OptimizerConfig config = config_of(1);
  config.groups = {group({"*_q"}, 0.7, 0.25), group({"*norm"}, 0.05)};
  const auto train = [](const Named& model, Optimizer& optimizer, uint64_t seed) {
    auto generator = seeded(seed);
    for (int i = 0; i < 5; ++i) {
      optimizer.zero_gradients();
      Tensor loss = torch::zeros({}, torch::kFloat32);
      for (const Tensor& parameter : model.parameters_)
        loss = loss + (parameter * torch::randn(parameter.sizes(), generator)).sum();
      loss.backward();
      optimizer.step(0.1, loss.detach());
    }
  };
  Named model;
  model.to(torch::kFloat32);
  Optimizer optimizer(model, torch::kFloat32, config);
  train(model, optimizer, 1);
  CheckpointContents contents = snapshot_of(optimizer);
  contents.state = {{"step", 5}};
  write_checkpoint(folder / "c", contents);
  train(model, optimizer, 2);

  Named other;
  other.to(torch::kFloat32);
  const Checkpoint checkpoint(folder / "c");
  checkpoint.load_weights(other);
  Optimizer resumed(other, torch::kFloat32, config);
  resumed.load(checkpoint, 5);
  train(other, resumed, 2);
  const Tensors expected = tensors_of(snapshot_of(optimizer)),
                found = tensors_of(snapshot_of(resumed));
  for (size_t i = 0; i < expected.size(); ++i) EXPECT_TRUE(found[i].equal(expected[i])) << i;
}

}  // namespace
}  // namespace tandem
