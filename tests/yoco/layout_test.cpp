#include <gtest/gtest.h>

#include <vector>

#include "core/error.h"
#include "nn/gated_retention.h"
#include "nn/layer_runner.h"
#include "nn/official_params.h"
#include "tests/nn/helpers.h"
#include "yoco/official_names.h"
#include "yoco/yoco.h"

// The layouts of the paper's ablations: [3:1], [1:3] and [0:1] layers of self- and cross-decoder,
// and unstacked YOCO, whose cross-decoder starts from the embeddings.

namespace tandem {
namespace {

struct Layout {
  std::string name;
  int64_t n_self, n_cross;
  std::string input;
};

const Layout kUnstacked = {"Unstacked", 2, 2, "embeddings"},
             kZeroToOne = {"ZeroToOne", 0, 3, "self_decoder"};

YocoStackConfig config_of(const Layout& layout) {
  YocoStackConfig config;
  config.d_model = 10;
  config.ffn_dim = 13;
  config.self_decoder.n_layers = layout.n_self;
  auto& retention = config.self_decoder.mixers[0].as<GatedRetentionConfig>();
  retention.n_heads = 3;
  retention.head_dim = 4;
  auto& cross = config.cross_decoder;
  cross.n_layers = layout.n_cross;
  cross.n_heads = 4;
  cross.n_kv_heads = 2;
  cross.head_dim = 6;
  cross.input = layout.input;
  return config;
}

/// Gives `part` the parameters that `whole` has below `prefix`.
void share_parameters(torch::nn::Module& part, const torch::nn::Module& whole,
                      const std::string& prefix) {
  const auto named = whole.named_parameters();
  for (auto& item : part.named_parameters())
    materialise(item.value(), named[prefix + item.key()].detach());
}

/// The parts of a YocoStack with its weights, to be put together by hand.
struct Parts {
  Parts(const YocoStackConfig& config, const YocoStack& stack)
      : eps(config.norm_eps),
        self_decoder(config.self_decoder, {config.d_model, eps, config.rope}, config.ffn_dim),
        shared_kv({config.d_model, *config.cross_decoder.n_kv_heads, config.cross_decoder.head_dim,
                   eps, config.rope}),
        cross_decoder(config.cross_decoder, {config.d_model, eps, config.rope}, config.ffn_dim),
        final_norm(stack.named_parameters()["final_norm.weight"].detach()) {
    share_parameters(self_decoder, stack, "self_decoder.");
    share_parameters(shared_kv, stack, "shared_kv.");
    share_parameters(cross_decoder, stack, "cross_decoder.");
  }
  Tensor normed(const Tensor& x) const { return rms_norm(x, eps) * final_norm; }

  double eps;
  SelfDecoder self_decoder;
  SharedKvMaker shared_kv;
  CrossDecoder cross_decoder;
  Tensor final_norm;
};

Tensor random_embeddings(int64_t n_tokens, uint64_t seed = 21) {
  return torch::randn({2, n_tokens, 10}, seeded(seed), torch::kFloat64);
}

TEST(LayoutTest, UnstackedTakesKeysAndValuesFromTheSelfDecoderAndTheRestFromTheEmbeddings) {
  const auto config = config_of(kUnstacked);
  YocoStack stack(config);
  materialise_random(stack, 22);
  Parts parts(config, stack);
  const auto x = random_embeddings(17);
  const auto context = context_of(2, 0, 17);
  const SharedKv kv =
      parts.shared_kv.forward(parts.self_decoder.forward(x, context, nullptr), context, nullptr);
  const Tensor expected = parts.normed(parts.cross_decoder.forward(x, kv, context));
  expect_close(stack.forward(x, context, nullptr, Want::kAll), expected, 1e-12);

  YocoStackConfig stacked_config = config;
  stacked_config.cross_decoder.input = "self_decoder";
  YocoStack stacked(stacked_config);
  materialise_random(stacked, 22);
  EXPECT_FALSE(torch::allclose(stacked.forward(x, context, nullptr, Want::kAll), expected));
}

TEST(LayoutTest, WithoutASelfDecoderKeysAndValuesAreThoseOfTheEmbeddings) {
  const auto config = config_of(kZeroToOne);
  YocoStack stack(config);
  materialise_random(stack, 23);
  Parts parts(config, stack);
  const auto x = random_embeddings(17);
  const auto context = context_of(2, 0, 17);
  const SharedKv kv = parts.shared_kv.forward(x, context, nullptr);
  const Tensor expected = parts.normed(parts.cross_decoder.forward(x, kv, context));
  expect_close(stack.forward(x, context, nullptr, Want::kAll), expected, 1e-12);

  Layout layout = kZeroToOne;  // nothing stands between the embeddings and the cross-decoder:
                               // unstacked is the same
  layout.input = "embeddings";
  YocoStack unstacked(config_of(layout));
  materialise_random(unstacked, 23);
  expect_close(unstacked.forward(x, context, nullptr, Want::kAll), expected, 1e-12);

  std::vector<std::string> names;
  for (const auto& [name, tensor] : stack.make_state({})->tensors()) names.push_back(name);
  EXPECT_EQ(names, (std::vector<std::string>{"shared_kv.keys", "shared_kv.values"}));
  EXPECT_EQ(stack.state_bytes(100, torch::kBFloat16).total(),
            2 * 100 * 2 * 6 * 2);  // keys and values of 2 heads of 6, 2 bytes each
}

class LayoutWantTest : public testing::TestWithParam<Layout> {
 protected:
  LayoutWantTest() { materialise_random(stack_, 24); }
  YocoStack stack_{config_of(GetParam())};
};

TEST_P(LayoutWantTest, SomeOutputsAreThoseOfAll) {
  const auto x = random_embeddings(17).requires_grad_();
  auto context = context_of(2, 0, 17);
  context.segment = torch::zeros({2, 17}, torch::kInt32);
  context.segment.slice(1, 7).fill_(1);
  context.positions = torch::cat({torch::arange(7), torch::arange(10)}).repeat({2, 1});
  context.wanted = torch::tensor({{0, 5, 6, 12}, {7, 8, 16, 1}}, torch::kInt64);
  const Tensor all = stack_.forward(x, context, nullptr, Want::kAll),
               some = stack_.forward(x, context, nullptr, Want::kSome);
  const Tensor expected = at_columns(all, context.wanted);
  expect_close(some, expected, 1e-12);

  const auto weights = torch::randn(some.sizes(), seeded(25), torch::kFloat64);
  Tensors inputs = stack_.parameters();
  inputs.push_back(x);
  const auto gradients = torch::autograd::grad({(some * weights).sum()}, inputs),
             expected_gradients = torch::autograd::grad({(expected * weights).sum()}, inputs);
  for (size_t i = 0; i < inputs.size(); ++i) expect_close(gradients[i], expected_gradients[i]);
}

TEST_P(LayoutWantTest, LastIsTheLastOfAllAndNothingLeavesTheSameState) {
  const auto x = random_embeddings(17), next = random_embeddings(1, 26);
  StateShape shape;
  shape.batch = 2;
  shape.dtype = torch::kFloat64;
  auto context = context_of(2, 0, 17);
  context.lengths = torch::tensor({17, 9}, torch::kInt64);
  const auto all_state = stack_.make_state(shape), last_state = stack_.make_state(shape),
             no_state = stack_.make_state(shape);
  const Tensor all = stack_.forward(x, context, all_state.get(), Want::kAll),
               last = stack_.forward(x, context, last_state.get(), Want::kLast);
  expect_close(last, torch::stack({all[0][16], all[1][8]}).unsqueeze(1), 1e-12);
  EXPECT_FALSE(stack_.forward(x, context, no_state.get(), Want::kNothing).defined());
  ForwardContext step;
  step.positions = positions_after(context.lengths, 1);
  const Tensor expected = stack_.forward(next, step, all_state.get(), Want::kAll);
  for (const auto* state : {&last_state, &no_state})
    expect_close(stack_.forward(next, step, state->get(), Want::kLast), expected, 1e-12);
}

// Writes down how many tokens each layer was run on.
struct Recorder : LayerRunner {
  std::vector<int64_t> n_tokens;
  Tensors run(torch::nn::Module&, const Tensors& inputs, const LayerFunction& f) override {
    n_tokens.push_back(inputs[0].size(1));
    return f(inputs);
  }
};

TEST_P(LayoutWantTest, AnEarlyExitSparesTheCrossDecoder) {
  const auto x = random_embeddings(17);
  StateShape shape;
  shape.batch = 2;
  shape.dtype = torch::kFloat64;
  const auto state = stack_.make_state(shape);
  Recorder recorder;
  auto context = context_of(2, 0, 17);
  context.runner = &recorder;
  const auto before_cross = static_cast<size_t>(GetParam().n_self + 1),
             cross = static_cast<size_t>(GetParam().n_cross);
  stack_.forward(x, context, state.get(), Want::kNothing);
  EXPECT_EQ(recorder.n_tokens, std::vector<int64_t>(before_cross, 17));
  context.positions = context.positions + 17;
  recorder.n_tokens.clear();
  stack_.forward(x, context, state.get(), Want::kLast);
  std::vector<int64_t> expected(before_cross, 17);
  expected.resize(before_cross + cross, 1);
  EXPECT_EQ(recorder.n_tokens, expected);
}

INSTANTIATE_TEST_SUITE_P(Layouts, LayoutWantTest,
                         testing::Values(Layout{"OneToOne", 2, 2, "self_decoder"},
                                         Layout{"ThreeToOne", 3, 1, "self_decoder"},
                                         Layout{"OneToThree", 1, 3, "self_decoder"}, kZeroToOne,
                                         kUnstacked),
                         [](const auto& layout) { return layout.param.name; });

std::string error_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const UserError& error) {
    return error.what();
  }
  return "nothing was thrown";
}

TEST(LayoutTest, WhatALayoutMayBe) {
  const auto read = [](const std::string& text) {
    YocoConfig config;
    read_config(parse_yaml(text, "a.yaml"), config);
    return config;
  };
  EXPECT_EQ(read("self_decoder: {n_layers: 0}").self_decoder.n_layers, 0);
  EXPECT_EQ(read("cross_decoder: {input: embeddings}").cross_decoder.input, "embeddings");
  EXPECT_EQ(error_of([&] { read("self_decoder: {n_layers: -1}"); }),
            "a.yaml:1: self_decoder.n_layers = -1, expected an integer >= 0");
  EXPECT_EQ(error_of([&] { read("cross_decoder: {input: words}"); }),
            "a.yaml:1: cross_decoder.input = words, expected one of: self_decoder, embeddings");
}

TEST(LayoutTest, TheOfficialFormHasNoUnstackedModel) {
  YocoConfig config;
  config.vocab_size = 19;
  config.d_model = 24;
  auto& retention = config.self_decoder.mixers[0].as<GatedRetentionConfig>();
  retention.n_heads = 3;
  retention.head_dim = 8;
  config.cross_decoder.n_heads = 4;
  config.cross_decoder.head_dim = 6;
  EXPECT_EQ(official_params_of(config).at("n_layers"), 12);
  config.cross_decoder.input = "embeddings";
  EXPECT_EQ(error_of([&] { official_params_of(config); }),
            "cross_decoder.input = embeddings cannot be written as an official YOCO model, which "
            "has self_decoder");
}

}  // namespace
}  // namespace tandem
