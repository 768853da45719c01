#include "train/optimizer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

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
  const auto flat = [](const Tensor& tensor) {
    return tensor.detach().to(torch::kFloat64).flatten().clone();
  };
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
  expect_close(optimizer.weights()[0].second, before, 0);  // not rounded
  // 1000 updates of 1e-5 each, far below what a bfloat16 of about 1 can take up.
  for (int i = 0; i < 1000; ++i) {
    optimizer.zero_gradients();
    const Tensor loss =
        model.loss(torch::ones({5, 3}, torch::kBFloat16), torch::ones({7}, torch::kBFloat16));
    loss.backward();
    optimizer.step(1e-5, loss.detach());
  }
  const Tensor master = optimizer.weights()[1].second;
  expect_close(optimizer.main_gradients()[1], torch::ones({7}), 0);
  EXPECT_EQ(optimizer.main_gradients()[1].scalar_type(), torch::kFloat32);
  Tensor moved;
  for (const auto& piece : optimizer.pieces()) {
    if (piece.name == "exp_avg.vector") moved = piece.data;
  }
  expect_close(moved, torch::ones({7}), 1e-5);
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
    const auto step = [&](const Tensor& xs, std::optional<double> loss_value) {
      optimizer.zero_gradients();
      const Tensor loss = model.loss(xs, y);
      loss.backward();
      return optimizer.step(0.1, loss_value ? torch::tensor(*loss_value) : loss.detach())
          .skipped.item<float>();
    };
    EXPECT_EQ(step(x, {}), 0);
    if (with_bad_steps) {
      Tensor bad = x.clone();
      bad[1][2] = std::numeric_limits<float>::quiet_NaN();
      EXPECT_EQ(step(bad, 1.0), 1);
      bad[1][2] = std::numeric_limits<float>::infinity();
      EXPECT_EQ(step(bad, 1.0), 1);
      EXPECT_EQ(step(x, std::numeric_limits<double>::infinity()), 1);
    }
    EXPECT_EQ(step(2 * x, {}), 0);
    EXPECT_EQ(optimizer.steps_taken(), 2);
    Tensors state = {model.matrix.detach(), model.vector.detach()};
    for (const auto& piece : optimizer.pieces()) state.push_back(piece.data);
    return state;
  };
  const Tensors plain = train(false), with_bad = train(true);
  for (size_t i = 0; i < plain.size(); ++i) EXPECT_TRUE(plain[i].equal(with_bad[i])) << i;
}

}  // namespace
}  // namespace tandem
