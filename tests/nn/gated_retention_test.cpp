#include "nn/gated_retention.h"

#include <gtest/gtest.h>

#include <cmath>

#include "nn/gated_retention_ops.h"
#include "tests/golden.h"
#include "tests/nn/helpers.h"

namespace tandem {
namespace {

struct Inputs {
  Tensor q, k, v, log_decay, segment, initial_state, initial_segment;
  Tensors differentiable() const {
    Tensors all = {q, k, v, log_decay};
    if (initial_state.defined()) all.push_back(initial_state);
    return all;
  }
};

struct Form {
  std::string name;
  std::function<Retention(const Inputs&)> run;
};

Form chunkwise(int64_t chunk) {
  return {"chunks of " + std::to_string(chunk), [chunk](const Inputs& in) {
            return gated_retention(in.q, in.k, in.v, in.log_decay, in.segment, in.initial_state,
                                   in.initial_segment, chunk);
          }};
}
Form recurrent() {
  return {"recurrent", [](const Inputs& in) {
            return gated_retention_recurrent(in.q, in.k, in.v, in.log_decay, in.segment,
                                             in.initial_state, in.initial_segment);
          }};
}
Form parallel() {
  return {"parallel", [](const Inputs& in) {
            return gated_retention_parallel(in.q, in.k, in.v, in.log_decay, in.segment,
                                            in.initial_state, in.initial_segment);
          }};
}

/// |actual - expected| within `tolerance` of the largest expected value of the same head: a head
/// with tiny gradients is not hidden by another with large ones. `head_dim` is the dimension of
/// heads.
void expect_close_by_head(const Tensor& actual, const Tensor& expected, int64_t head_dim,
                          double tolerance = 1e-10) {
  ASSERT_EQ(actual.sizes(), expected.sizes());
  for (int64_t h = 0; h < expected.size(head_dim); ++h) {
    SCOPED_TRACE("head " + std::to_string(h));
    const auto reference = expected.select(head_dim, h);
    expect_close(actual.select(head_dim, h), reference,
                 tolerance * reference.abs().max().item<double>());
  }
}

Tensors gradients_of(const Retention& result, const Tensor& d_output, const Tensor& d_state,
                     const Inputs& in) {
  return torch::autograd::grad(
      {(result.output * d_output).sum() + (result.final_state * d_state).sum()},
      in.differentiable());
}

class GatedRetentionGoldenTest : public testing::TestWithParam<const char*> {};

TEST_P(GatedRetentionGoldenTest, EveryFormGivesTheReference) {
  const Golden golden("gated_retention/" + std::string(GetParam()) + "/io.safetensors");
  Inputs in;
  for (const auto& [name, tensor] : std::initializer_list<std::pair<std::string, Tensor*>>{
           {"q", &in.q},
           {"k", &in.k},
           {"v", &in.v},
           {"log_decay", &in.log_decay},
           {"initial_state", &in.initial_state}}) {
    if (golden.has(name)) *tensor = golden(name).requires_grad_();
  }
  if (golden.has("document_start")) {
    in.segment = golden("document_start").cumsum(1).to(torch::kInt32);
    in.initial_segment = torch::zeros({in.q.size(0)}, torch::kInt32);
  }
  const auto d_output = golden("grad_output");
  const auto d_state = golden.has("grad_final_state") ? golden("grad_final_state")
                                                      : torch::zeros_like(golden("final_state"));
  for (const auto& form :
       {chunkwise(64), chunkwise(256), chunkwise(7), chunkwise(1), parallel(), recurrent()}) {
    SCOPED_TRACE(form.name);
    const auto result = form.run(in);
    expect_close_by_head(result.output, golden("output"), 2);
    expect_close_by_head(result.final_state, golden("final_state"), 1);
    const auto gradients = gradients_of(result, d_output, d_state, in);
    expect_close_by_head(gradients[0], golden("grad_q"), 2);
    expect_close_by_head(gradients[1], golden("grad_k"), 2);
    expect_close_by_head(gradients[2], golden("grad_v"), 2);
    expect_close_by_head(gradients[3], golden("grad_log_decay"), 2);
    if (in.initial_state.defined())
      expect_close_by_head(gradients[4], golden("grad_initial_state"), 1);
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, GatedRetentionGoldenTest,
                         testing::Values("t1_k16", "t63_k16", "t130_k16", "t300_k16_v8", "t24_k64",
                                         "extreme_gates", "resets"),
                         [](const auto& test) { return std::string(test.param); });

constexpr int64_t kBatch = 3, kHeads = 2, kKeyDim = 5, kValueDim = 4;

Inputs random_inputs(int64_t n_tokens, uint64_t seed, torch::Dtype dtype = torch::kFloat64) {
  auto generator = seeded(seed);
  const auto random = [&](std::vector<int64_t> sizes) {
    return torch::randn(sizes, generator, torch::kFloat64).to(dtype);
  };
  Inputs in;
  in.q = random({kBatch, n_tokens, kHeads, kKeyDim}).requires_grad_();
  in.k = random({kBatch, n_tokens, kHeads, kKeyDim}).requires_grad_();
  in.v = random({kBatch, n_tokens, kHeads, kValueDim}).requires_grad_();
  in.log_decay =
      torch::log_sigmoid(3 * random({kBatch, n_tokens, kHeads})).div(4).detach().requires_grad_();
  in.initial_state = random({kBatch, kHeads, kKeyDim, kValueDim}).requires_grad_();
  return in;
}

/// Documents of lengths 1, 1, 9, 1, 20, 3 and the rest, beginning elsewhere in every row; padding
/// at the end of row 1, in front of row 2, and within a document of row 0.
Tensor documents_with_padding(int64_t n_tokens) {
  auto segment = torch::zeros({kBatch, n_tokens}, torch::kInt32);
  for (int64_t b = 0; b < kBatch; ++b) {
    int64_t begin = b;
    int32_t n = 0;
    for (const int64_t length : {1, 1, 9, 1, 20, 3}) {
      segment[b].slice(0, begin, n_tokens).fill_(++n);
      begin += length;
    }
  }
  segment[0].slice(0, 15, 18).fill_(-1);
  segment[1].slice(0, n_tokens - 5, n_tokens).fill_(-1);
  segment[2].slice(0, 0, 2).fill_(-1);
  return segment;
}

TEST(GatedRetentionTest, FormsAgreeAcrossDocumentsAndPadding) {
  for (const bool with_state : {true, false}) {
    for (const bool other_document : {false, true}) {
      auto in = random_inputs(53, 11);
      in.segment = documents_with_padding(53);
      if (!with_state) in.initial_state = Tensor();
      if (other_document)
        in.initial_segment =
            torch::tensor({0, 7, 1}, torch::kInt32);  // row 2 goes on with its state
      auto generator = seeded(12);
      const auto d_output =
          torch::randn({kBatch, 53, kHeads, kValueDim}, generator, torch::kFloat64);
      const auto d_state =
          torch::randn({kBatch, kHeads, kKeyDim, kValueDim}, generator, torch::kFloat64);
      const auto expected = recurrent().run(in);
      const auto expected_gradients = gradients_of(expected, d_output, d_state, in);
      for (const auto& form :
           {chunkwise(64), chunkwise(16), chunkwise(10), chunkwise(1), parallel()}) {
        SCOPED_TRACE(form.name);
        const auto result = form.run(in);
        expect_close(result.output, expected.output);
        expect_close(result.final_state, expected.final_state);
        const auto gradients = gradients_of(result, d_output, d_state, in);
        for (size_t i = 0; i < gradients.size(); ++i) {
          SCOPED_TRACE("gradient of input " + std::to_string(i));
          expect_close(gradients[i], expected_gradients[i]);
        }
      }
    }
  }
}

TEST(GatedRetentionTest, DocumentsAreKeptApart) {
  for (const auto& form : {chunkwise(8), recurrent(), parallel()}) {
    SCOPED_TRACE(form.name);
    auto in = random_inputs(31, 21);
    in.initial_state = Tensor();
    const std::vector<int64_t> lengths = {1, 12, 1, 1, 16};
    const auto segment = torch::repeat_interleave(torch::arange(5, torch::kInt32),
                                                  torch::tensor(lengths, torch::kInt64));
    in.segment = segment.unsqueeze(0).repeat({kBatch, 1});
    const auto whole = form.run(in);
    int64_t begin = 0;
    for (const int64_t length : lengths) {
      const Inputs alone = {.q = in.q.narrow(1, begin, length),
                            .k = in.k.narrow(1, begin, length),
                            .v = in.v.narrow(1, begin, length),
                            .log_decay = in.log_decay.narrow(1, begin, length),
                            .segment = {},
                            .initial_state = {},
                            .initial_segment = {}};
      const auto document = form.run(alone);
      expect_close(whole.output.narrow(1, begin, length), document.output);
      begin += length;
      if (begin == 31) expect_close(whole.final_state, document.final_state);
    }
  }
}

TEST(GatedRetentionTest, TheGateOfAFirstTokenHasNoGradient) {
  for (const auto& form : {chunkwise(8), recurrent(), parallel()}) {
    SCOPED_TRACE(form.name);
    auto in = random_inputs(31, 22);
    in.segment = (torch::arange(31, torch::kInt32) / 8)
                     .floor()
                     .to(torch::kInt32)
                     .unsqueeze(0)
                     .repeat({kBatch, 1});
    in.initial_segment = torch::full({kBatch}, 9, torch::kInt32);
    const auto result = form.run(in);
    const auto gradient = torch::autograd::grad(
        {result.output.square().sum() + result.final_state.sum()}, {in.log_decay})[0];
    for (int64_t t = 0; t < 31; ++t) {
      EXPECT_EQ(gradient.select(1, t).eq(0).all().item<bool>(), t % 8 == 0) << "token " << t;
    }
    in.segment = in.initial_segment = in.initial_state = Tensor();
    const auto alone =
        torch::autograd::grad({form.run(in).output.square().sum()}, {in.log_decay})[0];
    EXPECT_TRUE(alone.select(1, 0).eq(0).all().item<bool>());
  }
}

TEST(GatedRetentionTest, PaddingIsInvisible) {
  for (const auto& form : {chunkwise(8), recurrent(), parallel()}) {
    SCOPED_TRACE(form.name);
    auto in = random_inputs(29, 23);
    const std::vector<int64_t> lengths = {29, 0, 17};
    in.segment =
        torch::where(torch::arange(29) < torch::tensor(lengths, torch::kInt64).unsqueeze(1), 0, -1)
            .to(torch::kInt32);
    const auto padded = form.run(in);
    EXPECT_TRUE(padded.output.isfinite().all().item<bool>());
    expect_close(padded.final_state[1], in.initial_state[1], 0);
    for (const int64_t b : {0, 2}) {
      const auto row = [&](const Tensor& x) {
        return x.narrow(0, b, 1).narrow(1, 0, lengths[static_cast<size_t>(b)]);
      };
      const auto alone = gated_retention(row(in.q), row(in.k), row(in.v), row(in.log_decay), {},
                                         in.initial_state.narrow(0, b, 1));
      expect_close(row(padded.output), alone.output);
      expect_close(padded.final_state.narrow(0, b, 1), alone.final_state);
    }
  }
}

TEST(GatedRetentionTest, GatesFarApartStayFiniteInFloat32) {
  auto in = random_inputs(150, 24, torch::kFloat32);
  const auto closed = torch::rand({kBatch, 150, kHeads}, seeded(25), torch::kFloat32) < 0.5;
  in.log_decay = torch::where(closed, -60.0f, 0.0f).requires_grad_();
  Inputs wide = in;
  for (Tensor* tensor : {&wide.q, &wide.k, &wide.v, &wide.log_decay, &wide.initial_state}) {
    *tensor = tensor->detach().to(torch::kFloat64).requires_grad_();
  }
  const auto result = chunkwise(64).run(in), expected = recurrent().run(wide);
  const auto scale = expected.output.abs().max().item<double>();
  expect_close(result.output, expected.output, 1e-5 * scale);
  const auto ones = torch::ones_like(expected.output),
             no_state = torch::zeros_like(expected.final_state);
  const auto gradients = gradients_of(result, ones, no_state, in),
             expected_gradients = gradients_of(expected, ones, no_state, wide);
  for (size_t i = 0; i < gradients.size(); ++i) {
    SCOPED_TRACE("gradient of input " + std::to_string(i));
    expect_close(gradients[i], expected_gradients[i],
                 1e-5 * expected_gradients[i].abs().max().item<double>());
  }
}

TEST(GatedRetentionTest, SplitCallsCarryTheState) {
  const auto in = random_inputs(47, 26);
  const auto whole = chunkwise(16).run(in);
  Tensor state = in.initial_state;
  Tensors outputs;
  int64_t begin = 0;
  for (const int64_t n : {20, 1, 1, 25}) {
    const auto part = [&](const Tensor& x) { return x.narrow(1, begin, n); };
    const auto result =
        gated_retention(part(in.q), part(in.k), part(in.v), part(in.log_decay), {}, state, {}, 16);
    outputs.push_back(result.output);
    state = result.final_state;
    begin += n;
  }
  expect_close(torch::cat(outputs, 1), whole.output);
  expect_close(state, whole.final_state);
}

TEST(GatedRetentionTest, BFloat16KeepsAFloat32State) {
  auto in = random_inputs(40, 27);
  const auto expected = chunkwise(16).run(in);
  const auto expected_gate = torch::autograd::grad({expected.output.sum()}, {in.log_decay})[0];
  for (Tensor* tensor : {&in.q, &in.k, &in.v})
    *tensor = tensor->detach().to(torch::kBFloat16).requires_grad_();
  for (Tensor* tensor : {&in.log_decay, &in.initial_state})
    *tensor = tensor->detach().to(torch::kFloat32).requires_grad_();
  for (const auto& form : {chunkwise(16), recurrent()}) {
    SCOPED_TRACE(form.name);
    const auto result = form.run(in);
    EXPECT_EQ(result.output.dtype(), torch::kBFloat16);
    EXPECT_EQ(result.final_state.dtype(), torch::kFloat32);
    expect_close(result.output, expected.output, 0.02 * expected.output.abs().max().item<double>());
    const auto gradients =
        torch::autograd::grad({result.output.to(torch::kFloat32).sum()}, in.differentiable());
    for (const auto& gradient : gradients) EXPECT_TRUE(gradient.isfinite().all().item<bool>());
    const auto& gate = gradients[3];  // of log_decay
    EXPECT_LT((gate - expected_gate).norm().item<double>(),
              1.5e-2 * expected_gate.norm().item<double>());
  }
}

TEST(GatedRetentionTest, RefusesShapesThatDoNotFit) {
  const auto in = random_inputs(4, 28);
  EXPECT_THROW(gated_retention(in.q, in.v, in.v, in.log_decay), c10::Error);
  EXPECT_THROW(gated_retention(in.q, in.k, in.v, in.log_decay.narrow(1, 0, 3)), c10::Error);
  EXPECT_THROW(
      gated_retention(in.q, in.k, in.v, in.log_decay, {}, in.initial_state.narrow(0, 0, 1)),
      c10::Error);
  EXPECT_THROW(gated_retention(in.q, in.k, in.v, in.log_decay, {}, {}, {}, 0), c10::Error);
}

// The whole mixer, token by token as the paper and its code write it, from the parameters by name.
TEST(GatedRetentionTest, MixerIsThePapersFormula) {
  constexpr int64_t kModel = 10, kDim = 6, kTokens = 23;
  const MixerSpec spec{.d_model = kModel,
                       .norm_eps = 1e-3,
                       .rope = {.base = 100.0, .pairs = "interleaved", .exponents = "inclusive"}};
  GatedRetention mixer({.n_heads = kHeads, .head_dim = kDim, .temperature = 5, .chunk = 8}, spec);
  materialise_random(mixer, 31);
  const auto weights = mixer.named_parameters();
  const auto x = torch::randn({2, kTokens, kModel}, seeded(32), torch::kFloat64);
  const auto context = context_of(2, 0, kTokens);
  const auto project = [&](const char* name) {
    return x.matmul(weights[std::string(name) + ".weight"].t());
  };
  const auto table = make_rope_table(spec.rope, kDim, context.positions, torch::kFloat64);
  const auto heads = [&](const Tensor& y) { return y.view({2, kTokens, kHeads, kDim}); };
  const auto q = apply_rope(heads(project("q_proj")), table, spec.rope);
  const auto k = apply_rope(heads(project("k_proj")), table, spec.rope) / std::sqrt(6.0);
  const auto v = heads(project("v_proj")), gate = project("gate_proj").sigmoid().pow(1.0 / 5);
  auto state = torch::zeros({2, kHeads, kDim, kDim}, torch::kFloat64);
  Tensors rows;
  for (int64_t t = 0; t < kTokens; ++t) {
    state = gate.select(1, t).view({2, kHeads, 1, 1}) * state +
            torch::einsum("bhk,bhv->bhkv", {k.select(1, t), v.select(1, t)});
    const auto o = torch::einsum("bhk,bhkv->bhv", {q.select(1, t), state});
    rows.push_back((o / (o.square().mean(-1, true) + 1e-3).sqrt()).flatten(1));
  }
  const auto g = project("g_proj");
  const auto expected =
      (g * g.sigmoid() * torch::stack(rows, 1)).matmul(weights["o_proj.weight"].t());
  expect_close(mixer.forward(x, context, nullptr), expected);
}

TEST(GatedRetentionTest, StartsAsYocosCodeDoes) {
  GatedRetention mixer({.n_heads = 2, .head_dim = 4}, {.d_model = 12});
  const std::map<std::string, double> bounds = {
      // gain * sqrt(6 / (fan in + fan out))
      {"q_proj.weight", std::exp2(-2.5) * std::sqrt(6.0 / 20)},
      {"k_proj.weight", std::exp2(-2.5) * std::sqrt(6.0 / 20)},
      {"v_proj.weight", std::exp2(-2.5) * std::sqrt(6.0 / 20)},
      {"g_proj.weight", std::exp2(-2.5) * std::sqrt(6.0 / 20)},
      {"gate_proj.weight", std::exp2(-2.5) * std::sqrt(6.0 / 14)},
      {"o_proj.weight", 0.5 * std::sqrt(6.0 / 20)}};
  const auto infos = parameters_info(mixer);
  ASSERT_EQ(infos.size(), bounds.size());
  for (const auto& info : infos) {
    EXPECT_EQ(info.init.kind, Init::Kind::kUniform) << info.name;
    EXPECT_NEAR(info.init.value, bounds.at(info.name), 1e-12) << info.name;
  }
}

}  // namespace
}  // namespace tandem
