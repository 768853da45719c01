#include "nn/layer_runner.h"

#include "nn/linear.h"
#include "tests/nn/helpers.h"

namespace tandem {
namespace {

struct Recorder : LayerRunner {
  std::vector<const torch::nn::Module*> layers;
  std::vector<size_t> n_inputs;
  Tensors run(torch::nn::Module& layer, const Tensors& inputs, const LayerFunction& f) override {
    layers.push_back(&layer);
    n_inputs.push_back(inputs.size());
    return f(inputs);
  }
};

// Runs `inner` and doubles what comes out.
struct Doubler : LayerRunner {
  LayerRunner* inner;
  explicit Doubler(LayerRunner* r) : inner(r) {}
  Tensors run(torch::nn::Module& layer, const Tensors& inputs, const LayerFunction& f) override {
    auto outputs = inner->run(layer, inputs, f);
    for (auto& output : outputs) output = 2 * output;
    return outputs;
  }
};

class LayerRunnerTest : public testing::Test {
 protected:
  void SetUp() override { materialise_random(*layer_, 1); }
  LayerFunction function() {
    return [this](const Tensors& in) -> Tensors {
      return {layer_->forward(in[0]) + in[1], in[0] * in[1]};
    };
  }
  Linear layer_{5, 5, init_normal(1)};
  Tensors inputs_ = {torch::randn({2, 3, 5}, seeded(2), torch::kFloat64).requires_grad_(),
                     torch::randn({2, 3, 5}, seeded(3), torch::kFloat64).requires_grad_()};
};

TEST_F(LayerRunnerTest, WithoutARunnerTheFunctionIsCalled) {
  const auto expected = function()(inputs_),
             actual = run_layer(ForwardContext{}, *layer_, inputs_, function());
  ASSERT_EQ(actual.size(), 2U);
  expect_close(actual[0], expected[0], 0);
  expect_close(actual[1], expected[1], 0);
}

TEST_F(LayerRunnerTest, TheRunnerSeesLayerAndInputsAndGradientsFlow) {
  Recorder recorder;
  ForwardContext context;
  context.runner = &recorder;
  const auto outputs = run_layer(context, *layer_, inputs_, function());
  ASSERT_EQ(recorder.layers.size(), 1U);
  EXPECT_EQ(recorder.layers[0], layer_.get());
  EXPECT_EQ(recorder.n_inputs[0], 2U);
  const Tensors leaves = {inputs_[0], inputs_[1], layer_->weight()};
  const auto plain = function()(inputs_);
  const auto actual = torch::autograd::grad({outputs[0].sum() + outputs[1].sum()}, leaves);
  const auto expected = torch::autograd::grad({plain[0].sum() + plain[1].sum()}, leaves);
  for (size_t i = 0; i < leaves.size(); ++i) expect_close(actual[i], expected[i], 0);
}

TEST_F(LayerRunnerTest, RunnersWrapOneAnother) {
  Recorder recorder;
  Doubler doubler(&recorder);
  ForwardContext context;
  context.runner = &doubler;
  const auto outputs = run_layer(context, *layer_, inputs_, function());
  EXPECT_EQ(recorder.layers.size(), 1U);
  expect_close(outputs[1], 2 * inputs_[0] * inputs_[1], 0);
}

}  // namespace
}  // namespace tandem
