#include "nn/recomputing_runner.h"

#include "nn/linear.h"
#include "tests/nn/helpers.h"

namespace tandem {
namespace {

// tanh(x W^T) * y, and y once more: two inputs, two outputs, one parameter; calls are counted.
class RecomputingRunnerTest : public testing::TestWithParam<torch::Dtype> {
 protected:
  void SetUp() override { materialise_random(*layer_, 1, GetParam()); }
  Tensor random(uint64_t seed) const {
    return torch::randn({2, 3, 5}, seeded(seed), torch::kFloat64).to(GetParam());
  }
  LayerFunction function() {
    return [this](const Tensors& in) -> Tensors {
      ++calls_;
      return {layer_->forward(in[0]).tanh() * in[1], in[1] * 3};
    };
  }
  Tensors run(LayerRunner* runner) {
    ForwardContext context;
    context.runner = runner;
    return run_layer(context, *layer_, inputs_, function());
  }
  // Gradients of both inputs and the weight; undefined where there is none.
  Tensors gradients(LayerRunner* runner, const std::function<Tensor(const Tensors&)>& loss) {
    const Tensors leaves = {inputs_[0], inputs_[1], layer_->weight()};
    for (const auto& leaf : leaves) leaf.mutable_grad().reset();
    loss(run(runner)).backward();
    Tensors result;
    for (const auto& leaf : leaves) result.push_back(leaf.grad());
    return result;
  }
  void expect_as_plain(const std::function<Tensor(const Tensors&)>& loss) {
    const Tensors expected = gradients(nullptr, loss), actual = gradients(&runner_, loss);
    for (size_t i = 0; i < expected.size(); ++i) {
      ASSERT_EQ(actual[i].defined(), expected[i].defined()) << "leaf " << i;
      if (expected[i].defined()) {
        EXPECT_TRUE(torch::equal(actual[i], expected[i])) << "leaf " << i;
      }
    }
  }

  RecomputingRunner runner_;
  Linear layer_{5, 5, init_normal(1)};
  Tensors inputs_ = {random(2).requires_grad_(), random(3).requires_grad_()};
  int calls_ = 0;
};

Tensor of_both(const Tensors& out) { return (out[0] * out[1]).sum(); }

TEST_P(RecomputingRunnerTest, GradientsAreThoseOfThePlainRunToTheBit) {
  expect_as_plain(of_both);
  EXPECT_EQ(calls_, 1 + 2);  // plainly, forward, backward
}

TEST_P(RecomputingRunnerTest, AnOutputThatTheLossLeavesOut) {
  expect_as_plain([](const Tensors& out) { return out[0].square().sum(); });
  expect_as_plain(
      [](const Tensors& out) { return out[1].square().sum(); });  // no path to the weight
}

TEST_P(RecomputingRunnerTest, InputsAndParametersMayBeFrozen) {
  inputs_[0].requires_grad_(false);
  expect_as_plain(of_both);
  layer_->weight().detach_();
  inputs_[0].requires_grad_();
  expect_as_plain(of_both);
}

TEST_P(RecomputingRunnerTest, ParametersBehindFrozenInputsGetTheirGradients) {
  for (auto& input : inputs_) input.requires_grad_(false);
  expect_as_plain(of_both);
  EXPECT_EQ(calls_, 2);  // plainly both times
}

TEST_P(RecomputingRunnerTest, RunsPlainlyWhereNothingIsDifferentiated) {
  {
    const torch::NoGradGuard no_grad;
    EXPECT_FALSE(run(&runner_)[0].requires_grad());
  }
  for (auto& input : inputs_) input.requires_grad_(false);
  layer_->weight().requires_grad_(false);
  const Tensors plain = run(nullptr), recomputed = run(&runner_);
  EXPECT_TRUE(torch::equal(recomputed[0], plain[0]));
  EXPECT_FALSE(recomputed[0].requires_grad());
}

TEST_P(RecomputingRunnerTest, KeepsNothingButTheInputs) {
  std::weak_ptr<int> between;
  const auto f = [&](const Tensors& in) -> Tensors {
    // What the graph of a plain run would hold: a tensor whose storage says when it is freed.
    const auto token = std::make_shared<int>(0);
    between = token;
    const auto kept = torch::from_blob(
        in[0].mutable_data_ptr(), in[0].sizes(), [token](void*) {}, in[0].options());
    return {in[0] * kept};
  };
  const auto out = runner_.run(*layer_, {inputs_[0]}, f)[0];
  EXPECT_TRUE(between.expired());
  const auto plain = f({inputs_[0]})[0];
  EXPECT_FALSE(between.expired());
  out.sum().backward();
}

TEST_P(RecomputingRunnerTest, RecomputesInsideOfWhatIsRecomputed) {
  const auto f = function();
  const auto nested = [&](const Tensors& in) { return recomputed(in, f); };
  const auto gradient_of = [&](const LayerFunction& g) {
    layer_->weight().mutable_grad().reset();
    of_both(runner_.run(*layer_, inputs_, g)).backward();
    return layer_->weight().grad().clone();
  };
  EXPECT_TRUE(torch::equal(gradient_of(nested), gradient_of(f)));
}

INSTANTIATE_TEST_SUITE_P(Dtypes, RecomputingRunnerTest,
                         testing::Values(torch::kFloat64, torch::kFloat32, torch::kBFloat16),
                         [](const auto& test) { return std::string(c10::toString(test.param)); });

}  // namespace
}  // namespace tandem
