#include "tests/golden.h"
#include "tests/nn/helpers.h"

#include "cli/build_model.h"
#include "cli/yoco_official.h"
#include "nn/language_model.h"
#include "yoco/official_names.h"

// The official YOCO code was run in float32 on these weights; here they are run in float64. The tolerances are a few times what the README of the
// goldens says float32 is off by, and far below what any wrong detail makes.

namespace tandem {
namespace {

constexpr double kLogits = 3e-5, kRetentionState = 1e-5, kKeysAndValues = 2e-5, kNll = 3e-5;
constexpr double kGradient = 2e-5;  // norm of the difference relative to the norm of the tensor

struct GoldenCase {
  explicit GoldenCase(const std::string& name) : io(read_tensors(golden_yoco(name) + "/io.safetensors")) {
    PortableModel portable = read_yoco_official(golden_yoco(name));
    model = model_factory().build(portable.model);
    std::map<std::string, Tensor> weights(portable.weights.begin(), portable.weights.end());
    for (auto& parameter : model->named_parameters()) materialise(parameter.value(), weights.at(parameter.key()).to(torch::kFloat64));
  }
  std::unique_ptr<ModelState> make_state(int64_t batch) const {
    StateShape shape;
    shape.batch = batch;
    shape.dtype = torch::kFloat64;
    return model->make_state(shape);
  }
  std::map<std::string, Tensor> io;
  std::shared_ptr<LanguageModel> model;
};

class FullForwardGoldenTest : public testing::TestWithParam<std::string> {};

TEST_P(FullForwardGoldenTest, Logits) {
  const GoldenCase golden(GetParam());
  const Tensor& tokens = golden.io.at("tokens");
  const Tensor& expected = golden.io.at("logits");
  const auto state = golden.make_state(tokens.size(0));
  expect_close(golden.model->extend(tokens, {}, *state, Want::kAll), expected, kLogits);

  Batch batch;  // the same through training's forward pass
  batch.tokens = tokens.narrow(1, 0, tokens.size(1) - 1);
  batch.targets = tokens.narrow(1, 1, tokens.size(1) - 1);
  const Tensor log_probs = torch::log_softmax(expected.to(torch::kFloat64), -1).narrow(1, 0, batch.targets.size(1));
  expect_close(golden.model->loss(batch, {}).nll, -log_probs.gather(2, batch.targets.unsqueeze(2)).squeeze(2), kNll);
}

INSTANTIATE_TEST_SUITE_P(Cases, FullForwardGoldenTest,
                         testing::Values("gated_retention", "gated_retention_gqa", "sliding_window", "transformer_llama"),
                         [](const auto& golden) { return golden.param; });

class InferenceGoldenTest : public testing::TestWithParam<std::string> {};

/// Tensors of a state under the goldens' names.
std::map<std::string, Tensor> official_state(const ModelState& state) {
  std::map<std::string, Tensor> named;
  for (const auto& [name, tensor] : state.tensors()) {
    const std::string kind = name.substr(name.rfind('.') + 1);
    if (name.starts_with("shared_kv.")) {
      named[kind == "keys" ? "shared_key" : "shared_value"] = tensor;
      continue;
    }
    constexpr std::string_view kLayers = "self_decoder.layers.";
    const std::string layer = name.substr(kLayers.size(), name.find('.', kLayers.size()) - kLayers.size());
    named[(kind == "state" ? "retention_state." : kind == "keys" ? "window_key." : "window_value.") + layer] = tensor;
  }
  return named;
}

void expect_state(const GoldenCase& golden, const std::string& prefix, const ModelState& state) {
  const auto actual = official_state(state);
  size_t compared = 0;
  for (const auto& [name, expected] : golden.io) {
    if (!name.starts_with(prefix)) continue;
    SCOPED_TRACE(name);
    ++compared;
    const std::string own = name.substr(prefix.size());
    expect_close(actual.at(own), expected, own.starts_with("retention") ? kRetentionState : kKeysAndValues);
  }
  EXPECT_GE(compared, 2u) << prefix;
}

TEST_P(InferenceGoldenTest, PrefillInPiecesThenTokenByToken) {
  const GoldenCase golden(GetParam());
  const Tensor& prompt = golden.io.at("prompt");
  const Tensor& pieces = golden.io.at("prefill_pieces");
  const int64_t batch = prompt.size(0), last_piece = pieces[-1].item<int64_t>();

  for (const Want want : {Want::kNothing, Want::kAll}) {
    const auto state = golden.make_state(batch);
    Tensor logits;
    int64_t at = 0;
    for (int64_t i = 0; i < pieces.size(0); ++i) {
      const int64_t n = pieces[i].item<int64_t>();
      logits = golden.model->extend(prompt.narrow(1, at, n), {}, *state, want);
      at += n;
    }
    EXPECT_EQ(at, prompt.size(1) - 1);
    expect_state(golden, "after_prefill.", *state);
    if (want == Want::kAll) {
      ASSERT_EQ(logits.size(1), last_piece);
      expect_close(logits, golden.io.at("prefill_logits"), kLogits);
    }
    const Tensor fed = torch::cat({prompt.narrow(1, at, 1), golden.io.at("decoded_tokens")}, 1);
    Tensors decoded;
    for (int64_t i = 0; i < fed.size(1); ++i) decoded.push_back(golden.model->extend(fed.narrow(1, i, 1), {}, *state, Want::kLast));
    expect_close(torch::stack(decoded, 1), golden.io.at("decode_logits"), kLogits);
    expect_state(golden, "final.", *state);
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, InferenceGoldenTest, testing::Values("inference_chunked", "inference_sliding_window"),
                         [](const auto& golden) { return golden.param; });

class GradientGoldenTest : public testing::TestWithParam<std::string> {};

TEST_P(GradientGoldenTest, LossAndGradientOfEveryParameter) {
  const GoldenCase golden(GetParam());
  Batch batch;
  batch.tokens = golden.io.at("tokens");
  batch.targets = golden.io.at("targets");
  ForwardContext context;
  context.training = true;
  const Loss loss = golden.model->loss(batch, context);
  expect_close(loss.nll, golden.io.at("nll"), kNll);
  const double n = static_cast<double>(batch.targets.numel());
  EXPECT_NEAR(loss.sum.item<double>() / n, golden.io.at("loss").item<double>(), kNll);
  (loss.sum / n).backward();

  size_t compared = 0;
  for (const auto& parameter : golden.model->named_parameters()) {
    const Tensor expected = golden.io.at("grad." + official_yoco_name(parameter.key())).to(torch::kFloat64);
    const Tensor difference = parameter.value().grad() - expected;
    EXPECT_LE(difference.norm().item<double>(), kGradient * expected.norm().item<double>()) << parameter.key();
    ++compared;
  }
  EXPECT_EQ(compared + 4, golden.io.size());  // tokens, targets, nll, loss
}

INSTANTIATE_TEST_SUITE_P(Cases, GradientGoldenTest, testing::Values("gradients_gated_retention", "gradients_sliding_window"),
                         [](const auto& golden) { return golden.param; });

}  // namespace
}  // namespace tandem
