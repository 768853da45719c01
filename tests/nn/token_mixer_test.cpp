#include "nn/token_mixer.h"

#include <gtest/gtest.h>

#include "nn/full_attention.h"
#include "nn/gated_retention.h"
#include "nn/multi_scale_retention.h"
#include "nn/sliding_window_attention.h"
#include "tests/nn/helpers.h"

namespace tandem {
namespace {

constexpr int64_t kModel = 14;

constexpr std::string_view kNormed = "_normed";  // with norms of heads and biases

/// A tiny config for every mixer of the table: a new one needs a line here.
Choice tiny_config(std::string name) {
  const bool normed = name.ends_with(kNormed);
  if (normed) name.resize(name.size() - kNormed.size());
  auto choice = mixer_choice(name);
  if (name == "gated_retention") {
    choice.as<GatedRetentionConfig>() = {.n_heads = 3, .head_dim = 4, .temperature = 3, .chunk = 8};
  } else if (name == "retention") {
    choice.as<MultiScaleRetentionConfig>() = {.n_heads = 3, .head_dim = 4, .chunk = 8};
  } else if (name == "sliding_window") {
    choice.as<SlidingWindowConfig>() = {.n_heads = 4, .n_kv_heads = 2, .head_dim = 6, .window = 7};
  } else if (name == "full_attention") {
    choice.as<FullAttentionConfig>() = {.n_heads = 4, .n_kv_heads = 2, .head_dim = 6};
  } else {
    TORCH_CHECK(false, "tests/nn/token_mixer_test.cpp has no config for the mixer ", name);
  }
  if (normed && name == "sliding_window") {
    choice.as<SlidingWindowConfig>().qkv_bias = true;
    choice.as<SlidingWindowConfig>().qk_norm_eps = 1e-3;
  } else if (normed) {
    choice.as<FullAttentionConfig>().qkv_bias = true;
    choice.as<FullAttentionConfig>().qk_norm_eps = 1e-3;
  }
  return choice;
}

std::vector<std::string> mixer_names() {
  std::vector<std::string> names;
  for (const auto& option : mixer_options()) names.push_back(option.name);
  return names;
}

std::vector<std::string> mixers_and_their_options() {
  auto names = mixer_names();
  for (const char* name : {"sliding_window", "full_attention"})
    names.push_back(name + std::string(kNormed));
  return names;
}

class TokenMixerTest : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    // norm_eps: differences see no kink where a head gives almost nothing
    mixer_ = make_mixer(tiny_config(GetParam()), {.d_model = kModel, .norm_eps = 1e-3});
    materialise_random(*mixer_, 41);
  }

  static Tensor random_input(int64_t batch, int64_t n_tokens, uint64_t seed = 42) {
    return torch::randn({batch, n_tokens, kModel}, seeded(seed), torch::kFloat64);
  }
  std::unique_ptr<MixerState> make_state(int64_t batch, int64_t capacity = 8) const {
    return mixer_->make_state({.batch = batch, .capacity = capacity, .dtype = torch::kFloat64});
  }
  Tensor run(const Tensor& x, int64_t begin = 0, MixerState* state = nullptr) const {
    return mixer_->forward(x, context_of(x.size(0), begin, x.size(1)), state);
  }

  std::shared_ptr<TokenMixer> mixer_;
};

TEST_P(TokenMixerTest, DecodingInPiecesEqualsTheWholeSequence) {
  const auto x = random_input(2, 37);  // 37: a multiple of neither window nor chunk
  const auto expected = run(x);
  for (const auto& sizes : std::vector<std::vector<int64_t>>{
           {20, 1, 1, 15}, {37}, {3, 2, 5, 9, 18}, std::vector<int64_t>(37, 1)}) {
    auto state = make_state(2);
    Tensors pieces;
    int64_t begin = 0;
    for (const auto& part : x.split_with_sizes(sizes, /*dim=*/1)) {
      pieces.push_back(run(part, begin, state.get()));
      begin += part.size(1);
    }
    expect_close(torch::cat(pieces, /*dim=*/1), expected);
  }
}

TEST_P(TokenMixerTest, ALaterTokenNeverReachesBack) {
  const auto x = random_input(2, 37);
  auto changed = x.clone();
  changed.slice(1, 20) = 5 * random_input(2, 17, 43);
  const auto before = run(x), after = run(changed);
  expect_close(after.slice(1, 0, 20), before.slice(1, 0, 20), 1e-12);
  EXPECT_TRUE(
      (after.slice(1, 20) - before.slice(1, 20)).abs().amax({0, 2}).gt(1e-3).all().item<bool>());
}

TEST_P(TokenMixerTest, GradientsAreThoseOfTheValues) {
  const auto x = random_input(2, 19);
  auto context = context_of(2, 0, 19);
  Tensors inputs = {x};
  for (const auto& parameter : mixer_->parameters()) inputs.push_back(parameter);
  expect_gradients(
      [&](const Tensors& in) { return Tensors{mixer_->forward(in[0], context, nullptr)}; }, inputs);
}

// Rows of a batch take 20, 9, 0 tokens, then 0, 11, 4, then one each: every row must give what it
// gives alone.
TEST_P(TokenMixerTest, RaggedRowsEqualRowsAlone) {
  const std::vector<std::vector<int64_t>> calls = {
      {20, 9, 0}, {0, 11, 4}, {1, 1, 1}, {1, 1, 1}, {2, 0, 13}};
  auto together = make_state(3);
  std::vector<std::unique_ptr<MixerState>> alone;
  for (int row = 0; row < 3; ++row) alone.push_back(make_state(1));
  auto lengths = torch::zeros({3}, torch::kInt64);
  for (size_t call = 0; call < calls.size(); ++call) {
    SCOPED_TRACE("call " + std::to_string(call));
    ForwardContext context;
    context.lengths = torch::tensor(calls[call], torch::kInt64);
    const auto x = random_input(3, context.lengths.max().item<int64_t>(),
                                call);  // padding is as random as tokens
    context.positions = positions_after(lengths, x.size(1));
    const auto y = mixer_->forward(x, context, together.get());
    EXPECT_TRUE(y.isfinite().all().item<bool>());
    for (int64_t row = 0; row < 3; ++row) {
      const int64_t n = calls[call][static_cast<size_t>(row)];
      if (n == 0) continue;
      const auto expected = run(x.narrow(0, row, 1).narrow(1, 0, n), lengths[row].item<int64_t>(),
                                alone[static_cast<size_t>(row)].get());
      SCOPED_TRACE("row " + std::to_string(row));
      expect_close(y.narrow(0, row, 1).narrow(1, 0, n), expected);
    }
    lengths = lengths + context.lengths;
  }
}

// After a ragged prefill all rows take the same tokens, step by step past the room of any buffer.
TEST_P(TokenMixerTest, EqualStepsAfterARaggedPrefillEqualRowsAlone) {
  constexpr int64_t kSteps = 29;
  const auto x = random_input(3, 11), later = random_input(3, kSteps + 2, 43);
  const auto lengths = torch::tensor({11, 4, 1}, torch::kInt64);
  auto together = make_state(3);
  auto context = context_of(3, 0, 11);
  context.lengths = lengths;
  mixer_->forward(x, context, together.get());
  context.lengths = Tensor();
  Tensors outputs;
  for (int64_t t = 0; t < kSteps + 2; t += t == 13 ? 3 : 1) {  // one call of three
    const int64_t n = t == 13 ? 3 : 1;
    context.positions = positions_after(lengths + t, n);
    outputs.push_back(mixer_->forward(later.narrow(1, t, n), context, together.get()));
  }
  const auto y = torch::cat(outputs, 1);
  for (int64_t row = 0; row < 3; ++row) {
    const int64_t n = lengths[row].item<int64_t>();
    const auto whole =
        torch::cat({x.narrow(0, row, 1).narrow(1, 0, n), later.narrow(0, row, 1)}, 1);
    SCOPED_TRACE("row " + std::to_string(row));
    expect_close(y.narrow(0, row, 1), run(whole).slice(1, n));
  }
}

TEST_P(TokenMixerTest, DocumentsOfARowEqualDocumentsAlone) {
  const std::vector<int64_t> lengths = {1, 13, 1, 5, 11};
  const auto x = random_input(2, 31).requires_grad_();
  Tensors positions, expected;
  auto context = context_of(2, 0, 31);
  context.segment = torch::zeros({2, 31}, torch::kInt32);
  int64_t begin = 0;
  for (size_t n = 0; n < lengths.size(); ++n) {
    positions.push_back(torch::arange(lengths[n]));
    context.segment.narrow(1, begin, lengths[n]).fill_(static_cast<int64_t>(n));
    expected.push_back(run(x.narrow(1, begin, lengths[n])));
    begin += lengths[n];
  }
  context.positions = torch::cat(positions).repeat({2, 1});
  const auto whole = mixer_->forward(x, context, nullptr), documents = torch::cat(expected, 1);
  expect_close(whole, documents);

  const auto weights = torch::randn(whole.sizes(), seeded(44), torch::kFloat64);
  Tensors inputs = mixer_->parameters();
  inputs.push_back(x);
  const auto gradients = torch::autograd::grad({(whole * weights).sum()}, inputs);
  const auto expected_gradients = torch::autograd::grad({(documents * weights).sum()}, inputs);
  for (size_t i = 0; i < inputs.size(); ++i)
    expect_close(gradients[i], expected_gradients[i], 1e-9);
}

TEST_P(TokenMixerTest, PaddingOfTrainingRowsChangesNothing) {
  auto context = context_of(2, 0, 23);
  context.segment = torch::zeros({2, 23}, torch::kInt32);
  context.segment.slice(1, 17).fill_(-1);
  const auto x = random_input(2, 23);
  const auto y = mixer_->forward(x, context, nullptr);
  EXPECT_TRUE(y.isfinite().all().item<bool>());
  expect_close(y.slice(1, 0, 17), run(x.slice(1, 0, 17)));
}

TEST_P(TokenMixerTest, RowsDoNotMix) {
  const auto x = random_input(3, 21);
  const auto together = run(x);
  for (int64_t row = 0; row < 3; ++row)
    expect_close(run(x.narrow(0, row, 1)), together.narrow(0, row, 1), 1e-12);
}

TEST_P(TokenMixerTest, SelectRepeatsRowsAndLeavesTheOriginal) {
  auto state = make_state(2);
  ForwardContext context = context_of(2, 0, 11);
  context.lengths = torch::tensor({11, 6}, torch::kInt64);
  mixer_->forward(random_input(2, 11), context, state.get());
  const auto rows = torch::tensor({1, 0, 1}, torch::kInt64);
  const auto repeated = state->select(rows), copy = state->select(torch::arange(2));

  const auto next = random_input(2, 3, 45);
  const auto step = [&](const Tensor& x, const Tensor& lengths, MixerState* held) {
    ForwardContext own;
    own.positions = positions_after(lengths, x.size(1));
    return mixer_->forward(x, own, held);
  };
  const auto expected = step(next, context.lengths, state.get());
  expect_close(
      step(next.index_select(0, rows), context.lengths.index_select(0, rows), repeated.get()),
      expected.index_select(0, rows));
  expect_close(step(next, context.lengths, copy.get()), expected);
}

TEST_P(TokenMixerTest, StateHoldsTheBytesItSays) {
  for (const auto dtype : {torch::kFloat32, torch::kFloat64, torch::kInt8}) {
    const auto activations = dtype == torch::kInt8 ? torch::kFloat32 : dtype;
    materialise_random(*mixer_, 46, activations);
    auto state = mixer_->make_state({.batch = 2, .capacity = 4, .dtype = dtype});
    const auto x = random_input(2, 29).to(activations);
    run(x, 0, state.get());
    EXPECT_EQ(state->bytes(),
              2 * mixer_->state_bytes(29, dtype));
    for (const auto& [name, tensor] : state->tensors()) {
      EXPECT_EQ(tensor.dtype(), name == "state" ? activations : dtype) << name;
      EXPECT_FALSE(tensor.requires_grad()) << name;
    }
  }
}

TEST_P(TokenMixerTest, BFloat16FollowsFloat64) {
  const auto x = random_input(2, 21);
  const auto expected = run(x);
  materialise_random(*mixer_, 41, torch::kBFloat16);
  auto state = mixer_->make_state({.batch = 2, .capacity = 21, .dtype = torch::kBFloat16});
  const auto narrow = x.to(torch::kBFloat16);
  const double scale = expected.abs().max().item<double>();
  const auto y = run(narrow);
  EXPECT_EQ(y.dtype(), torch::kBFloat16);
  expect_close(y, expected, 0.05 * scale);
  expect_close(torch::cat({run(narrow.slice(1, 0, 20), 0, state.get()),
                           run(narrow.slice(1, 20), 20, state.get())},
                          1),
               expected, 0.05 * scale);
}

TEST_P(TokenMixerTest, CostsAddUp) {
  EXPECT_EQ(mixer_->forward_flops(Phase::kTrain, 50, 1),
            mixer_->forward_flops(Phase::kPrefill, 50, 1));
  EXPECT_EQ(mixer_->forward_flops(Phase::kTrain, 50, 3),
            3 * mixer_->forward_flops(Phase::kTrain, 50, 1));
  // Both phases do the same projections: 2 FLOPs a weight and token.
  const double weights = 2.0 * static_cast<double>(count_parameters(*mixer_));
  EXPECT_GT(mixer_->forward_flops(Phase::kTrain, 50, 1), 50 * weights);
  EXPECT_GT(mixer_->forward_flops(Phase::kDecode, 50, 1), weights);
}

TEST_P(TokenMixerTest, NamesInputsItWasNotMadeFor) {
  EXPECT_THROW(mixer_->forward(torch::zeros({2, 3, kModel + 1}, torch::kFloat64),
                               context_of(2, 0, 3), nullptr),
               c10::Error);
  auto state = make_state(3);
  EXPECT_THROW(run(random_input(2, 5), 0, state.get()), c10::Error);
}

INSTANTIATE_TEST_SUITE_P(Table, TokenMixerTest, testing::ValuesIn(mixers_and_their_options()),
                         [](const auto& test) { return test.param; });

double projection_flops(const TokenMixer& mixer) {
  return 2.0 * static_cast<double>(count_parameters(mixer));
}

// Decoding token i after i others meets i + 1 keys, so decoding a sequence costs what its prefill
// does.
TEST(MixerCostTest, SoftmaxCountsPairsThatMeet) {
  for (const char* name : {"full_attention", "sliding_window"}) {
    const auto mixer = make_mixer(tiny_config(name), {.d_model = kModel});
    double decoded = 0;
    for (int64_t i = 0; i < 20; ++i) decoded += mixer->forward_flops(Phase::kDecode, i, 2);
    EXPECT_EQ(decoded, mixer->forward_flops(Phase::kPrefill, 20, 2)) << name;
  }
  const auto full = make_mixer(tiny_config("full_attention"), {.d_model = kModel});
  EXPECT_EQ(full->forward_flops(Phase::kTrain, 20, 1),
            20 * projection_flops(*full) + 4 * 4 * 6 * (20 * 21 / 2));  // 4 H K a pair
}

TEST(MixerCostTest, RetentionCountsItsChunkForm) {
  for (const char* name : {"gated_retention", "retention"}) {
    const auto mixer = make_mixer(tiny_config(name), {.d_model = kModel});
    // H 3, K 4: 4 H K (C + K) a token, in decoding 4 H K^2; at most 8 tokens a chunk make 20 into
    // three chunks of 7
    EXPECT_EQ(mixer->forward_flops(Phase::kTrain, 20, 1),
              20 * (projection_flops(*mixer) + 4 * 3 * 4 * (7 + 4)))
        << name;
    EXPECT_EQ(mixer->forward_flops(Phase::kDecode, 20, 2),
              2 * (projection_flops(*mixer) + 4 * 3 * 4 * 4))
        << name;
  }
}

TEST(MixerCostTest, OnlyFullAttentionGrows) {
  const MixerSpec spec{.d_model = kModel};
  for (const char* name : {"gated_retention", "retention"}) {
    EXPECT_EQ(make_mixer(tiny_config(name), spec)->state_bytes(5000, torch::kBFloat16),
              3 * 4 * 4 * 4)  // float32 whatever the activations
        << name;
  }
  EXPECT_EQ(make_mixer(tiny_config("sliding_window"), spec)->state_bytes(5000, torch::kBFloat16),
            2 * 7 * 2 * 6 * 2);
  EXPECT_EQ(make_mixer(tiny_config("full_attention"), spec)->state_bytes(5000, torch::kBFloat16),
            2 * 5000 * 2 * 6 * 2);
}

TEST(SlidingWindowTest, StateIsTheLastTokensOldestFirst) {
  const auto mixer = make_mixer(tiny_config("sliding_window"),
                                {.d_model = kModel, .rope = {.base = std::nullopt}});
  materialise_random(*mixer, 47);
  const auto x = torch::randn({2, 30, kModel}, seeded(48), torch::kFloat64);
  const auto all_keys =
      x.matmul(mixer->named_parameters()["k_proj.weight"].t()).view({2, 30, 2, 6});
  auto state = mixer->make_state({.batch = 2, .dtype = torch::kFloat64});
  int64_t held = 0;
  for (const int64_t n : {3, 1, 2, 1, 1, 9, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}) {
    mixer->forward(x.narrow(1, held, n), context_of(2, held, n), state.get());
    held += n;
    const auto keys = state->tensors()[0];
    EXPECT_EQ(keys.first, "keys");
    const auto padded =
        torch::cat({torch::zeros({2, 7, 2, 6}, torch::kFloat64), all_keys.narrow(1, 0, held)}, 1);
    expect_close(keys.second, padded.slice(1, held), 1e-12);
  }
}

TEST(SlidingWindowTest, RowsOfDifferentLengthsStepInPlace) {
  const auto mixer = make_mixer(tiny_config("sliding_window"), {.d_model = kModel});
  materialise_random(*mixer, 51);
  auto state = mixer->make_state({.batch = 2, .dtype = torch::kFloat64});
  const auto x = torch::randn({2, 5, kModel}, seeded(52), torch::kFloat64);
  auto context = context_of(2, 0, 5);
  const auto lengths = torch::tensor({5, 2}, torch::kInt64);
  context.lengths = lengths;
  mixer->forward(x, context, state.get());
  context.lengths = Tensor();
  for (int64_t t = 0; t < 8; ++t) {  // as much as there is room for
    const auto before = state->tensors()[0].second;
    context.positions = positions_after(lengths + t, 1);
    mixer->forward(x.narrow(1, 0, 1), context, state.get());
    const auto after = state->tensors()[0].second;
    EXPECT_EQ(after.data_ptr<double>(), before.data_ptr<double>() + before.stride(1));
  }
}

TEST(SlidingWindowTest, AWindowAsLongAsTheRowIsFullAttention) {
  auto choice = tiny_config("sliding_window");
  choice.as<SlidingWindowConfig>().window = 19;
  const auto windowed = make_mixer(choice, {.d_model = kModel}),
             full = make_mixer(tiny_config("full_attention"), {.d_model = kModel});
  materialise_random(*windowed, 49);
  materialise_random(*full, 49);
  const auto x = torch::randn({1, 19, kModel}, seeded(50), torch::kFloat64);
  expect_close(windowed->forward(x, context_of(1, 0, 19), nullptr),
               full->forward(x, context_of(1, 0, 19), nullptr));
}

TEST(MixerTableTest, NamesTheMixersOfTheDesign) {
  EXPECT_EQ(mixer_names(), (std::vector<std::string>{"gated_retention", "retention",
                                                     "sliding_window", "full_attention"}));
  EXPECT_EQ(mixer_choice("sliding_window").key, "name");
  EXPECT_THROW(mixer_choice("attention"), std::out_of_range);
}

struct LayerConfig {
  Choice mixer = mixer_choice("gated_retention");
  template <typename Visitor>
  void fields(Visitor& visit) {
    visit.choice("mixer", mixer);
  }
};

TEST(MixerTableTest, ReadsAMixerFromItsConfig) {
  LayerConfig layer;
  read_config(
      parse_yaml("mixer: {name: sliding_window, n_heads: 2, head_dim: 8, window: 33}", "a.yaml"),
      layer);
  EXPECT_EQ(layer.mixer.as<SlidingWindowConfig>().window, 33);
  const auto mixer = make_mixer(layer.mixer, {.d_model = 16});
  EXPECT_EQ(count_parameters(*mixer), 4 * 16 * 16);
}

TEST(MixerTableTest, LayersRepeatThePattern) {
  const std::vector<Choice> pattern = {tiny_config("retention"), tiny_config("full_attention")};
  const auto mixers = make_mixers(pattern, 3, {.d_model = kModel});
  ASSERT_EQ(mixers.size(), 3u);
  EXPECT_NE(dynamic_cast<MultiScaleRetention*>(mixers[0].get()), nullptr);
  EXPECT_NE(dynamic_cast<FullAttention*>(mixers[1].get()), nullptr);
  EXPECT_NE(dynamic_cast<MultiScaleRetention*>(mixers[2].get()), nullptr);
  EXPECT_NE(mixers[0], mixers[2]);
  EXPECT_TRUE(make_mixers(pattern, 0, {.d_model = kModel}).empty());
}

}  // namespace
}  // namespace tandem
