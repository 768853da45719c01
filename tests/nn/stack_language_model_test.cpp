#include "nn/stack_language_model.h"

#include <gmock/gmock.h>

#include <cmath>
#include <limits>

#include "nn/decoder_layer.h"
#include "nn/recomputing_runner.h"
#include "tests/nn/helpers.h"
#include "tests/nn/toy_mixer.h"

namespace tandem {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;

constexpr int64_t kD = 6, kF = 11, kV = 13;

struct ToyStackState : StackState {
  std::unique_ptr<MixerState> mixer;
  std::unique_ptr<StackState> select(const Tensor& rows) const override {
    auto selected = std::make_unique<ToyStackState>();
    selected->lengths = lengths.index_select(0, rows);
    selected->mixer = mixer->select(rows);
    return selected;
  }
  std::vector<std::pair<std::string, Tensor>> tensors() const override { return mixer->tensors(); }
};

// One layer and a norm; remembers what it was called with.
class ToyStack : public DecoderStack {
 public:
  ToyStack() {
    layer_ = register_module(
        "layer", std::make_shared<DecoderLayer>(std::make_shared<ToyMixer>(kD), kD, kF, 1e-5));
    norm_ = register_module("norm", RmsNorm(kD, 1e-5));
  }
  Tensor forward(const Tensor& x, const ForwardContext& context, StackState* state,
                 Want want) override {
    seen = context;
    positions = context.positions;
    wanted.push_back(want);
    auto* own = dynamic_cast<ToyStackState*>(state);
    const auto h =
        norm_->forward(layer_->forward(x, context, own != nullptr ? own->mixer.get() : nullptr));
    if (own != nullptr) {
      own->lengths =
          own->lengths +
          (context.lengths.defined() ? context.lengths : torch::full_like(own->lengths, x.size(1)));
    }
    if (want == Want::kNothing) return {};
    if (want == Want::kSome) return at_columns(h, context.wanted);
    return want == Want::kAll ? h : last_of_each_row(h, context);
  }
  std::unique_ptr<StackState> make_state(const StateShape& shape) const override {
    auto state = std::make_unique<ToyStackState>();
    state->lengths = torch::zeros({shape.batch}, torch::kInt64);
    state->mixer = layer_->mixer().make_state(shape);
    return state;
  }
  int64_t d_model() const override { return kD; }
  int64_t n_layers() const override { return 1; }
  Flops forward_flops(Phase phase, int64_t length, int64_t batch) const override {
    return {{{"layers", layer_->mixer().forward_flops(phase, length, batch)}}};
  }
  StateBytes state_bytes(int64_t length, torch::Dtype dtype) const override {
    return {{{"layers", layer_->mixer().state_bytes(length, dtype)}}};
  }

  ForwardContext seen;
  Tensor positions;
  std::vector<Want> wanted;

 private:
  std::shared_ptr<DecoderLayer> layer_;
  RmsNorm norm_{nullptr};
};

std::string error_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const c10::Error& error) {
    return error.what_without_backtrace();
  }
  return "nothing was thrown";
}

struct Toy {
  std::shared_ptr<ToyStack> stack = std::make_shared<ToyStack>();
  std::unique_ptr<StackLanguageModel> model;
  explicit Toy(bool tie = false, bool scale = true, int64_t max_positions = 0) {
    const TokenEnds ends{kV,           1, tie, scale, init_normal(0.5), init_kaiming_uniform(kD),
                         max_positions};
    model = std::make_unique<StackLanguageModel>(stack, ends);
    materialise_random(*model, 1);
  }
  std::unique_ptr<ModelState> state(int64_t batch) const {
    return model->make_state({.batch = batch, .capacity = 20, .dtype = torch::kFloat64});
  }
  // Logits of whole rows.
  Tensor logits(const Tensor& tokens) const {
    return model->extend(tokens, {}, *state(tokens.size(0)), Want::kAll);
  }
};

Tensor random_tokens(int64_t batch, int64_t n_tokens) {
  return torch::randint(0, kV, {batch, n_tokens}, seeded(9), torch::kInt64);
}

Batch batch_of(const Tensor& tokens) {
  Batch batch;
  batch.tokens = tokens.narrow(1, 0, tokens.size(1) - 1);
  batch.targets = tokens.narrow(1, 1, tokens.size(1) - 1).clone();
  batch.samples = torch::arange(tokens.size(0));
  return batch;
}

TEST(StackLanguageModelTest, TheStacksPartsAreTheModelsOwn) {
  EXPECT_THAT(
      Toy().model->named_parameters().keys(),
      ElementsAre("embedding.weight", "layer.mixer_norm.weight", "layer.mixer.proj.weight",
                  "layer.ffn_norm.weight", "layer.ffn.gate_proj.weight", "layer.ffn.up_proj.weight",
                  "layer.ffn.down_proj.weight", "norm.weight", "head.weight"));
  const Toy tied(/*tie=*/true);
  EXPECT_EQ(tied.model->named_parameters().keys().back(), "norm.weight");
  EXPECT_EQ(count_parameters(*Toy().model) - count_parameters(*tied.model), kV * kD);
}

TEST(StackLanguageModelTest, EmbedsRunsTheStackAndProjects) {
  for (const bool tie : {false, true}) {
    for (const bool scale : {false, true}) {
      const Toy toy(tie, scale);
      const auto tokens = random_tokens(2, 7);
      const auto p = toy.model->named_parameters();
      const auto x = p["embedding.weight"].index({tokens}) *
                     (scale ? std::sqrt(static_cast<double>(kD)) : 1.0);
      const auto h = toy.stack->forward(x, context_of(2, 0, 7), nullptr, Want::kAll);
      expect_close(toy.logits(tokens), h.matmul(p[tie ? "embedding.weight" : "head.weight"].t()));
    }
  }
}

TEST(StackLanguageModelTest, TheLossIsTheNllOfTheLogits) {
  const Toy toy;
  const auto tokens = random_tokens(3, 8);
  auto batch = batch_of(tokens);
  batch.targets[1][2] = kIgnored;
  batch.weights = torch::rand({3, 7}, seeded(4), torch::kFloat32);
  const auto loss = toy.model->loss(batch, ForwardContext{});
  const auto nll =
      at::cross_entropy_loss(toy.logits(batch.tokens).flatten(0, 1), batch.targets.flatten(), {},
                             at::Reduction::None, kIgnored)
          .view({3, 7});
  expect_close(loss.nll.nan_to_num(), nll);
  expect_close(loss.sum, (nll * batch.weights).sum());
  EXPECT_TRUE(loss.nll[1][2].isnan().item<bool>());
}

TEST(StackLanguageModelTest, EveryParameterGetsItsGradient) {
  for (const bool tie : {false, true}) {
    const Toy toy(tie);
    const auto batch = batch_of(random_tokens(2, 6));
    expect_gradients(
        [&](const Tensors&) -> Tensors { return {toy.model->loss(batch, ForwardContext{}).sum}; },
        toy.model->parameters());
  }
}

TEST(StackLanguageModelTest, LossFillsTheContextFromTheBatch) {
  const Toy toy;
  auto batch = batch_of(random_tokens(2, 6));
  batch.segment = torch::tensor({0, 0, 1, 1, 1, 0, 0, 0, 0, -1}, torch::kInt32).view({2, 5});
  ForwardContext context;
  context.training = true;
  const auto loss = toy.model->loss(batch, context);
  EXPECT_TRUE(torch::equal(toy.stack->positions, positions_of(batch)));
  EXPECT_TRUE(toy.stack->seen.training);
  EXPECT_TRUE(toy.stack->seen.segment.is_same(batch.segment));
  EXPECT_TRUE(toy.stack->seen.samples.is_same(batch.samples));
  EXPECT_FALSE(context.segment.defined());
}

TEST(StackLanguageModelTest, LayersMayBeRecomputedWhenTheLossHasReturned) {
  const Toy toy;
  const auto batch = batch_of(random_tokens(2, 6));
  const auto gradients = [&](LayerRunner* runner) {
    ForwardContext context;
    context.runner = runner;
    toy.model->zero_grad();
    toy.model->loss(batch, context).sum.backward();
    Tensors found;
    for (const auto& parameter : toy.model->parameters()) found.push_back(parameter.grad().clone());
    return found;
  };
  RecomputingRunner runner;
  const auto plain = gradients(nullptr), recomputed = gradients(&runner);
  for (size_t i = 0; i < plain.size(); ++i) expect_close(recomputed[i], plain[i], 0);
}

constexpr int64_t kPositions = 8;

TEST(StackLanguageModelTest, LearnedPositionsAreAddedToTheEmbeddings) {
  for (const bool scale : {false, true}) {
    const Toy toy(/*tie=*/true, scale, kPositions);
    EXPECT_THAT(toy.model->named_parameters().keys(),
                testing::Contains("position_embedding.weight"));
    const auto tokens = random_tokens(2, kPositions);
    const auto p = toy.model->named_parameters();
    EXPECT_EQ(p["position_embedding.weight"].sizes(), (std::vector<int64_t>{kPositions, kD}));
    const auto x =
        p["embedding.weight"].index({tokens}) * (scale ? std::sqrt(static_cast<double>(kD)) : 1.0) +
        p["position_embedding.weight"];
    const auto h = toy.stack->forward(x, context_of(2, 0, kPositions), nullptr, Want::kAll);
    expect_close(toy.logits(tokens), h.matmul(p["embedding.weight"].t()));
  }
  EXPECT_EQ(Toy(false, true, kPositions).model->packing().max_length, kPositions);
  EXPECT_EQ(Toy().model->packing().max_length, 0);
}

TEST(StackLanguageModelTest, LearnedPositionsBeginAgainWithEachDocument) {
  const Toy toy(/*tie=*/false, /*scale=*/false, kPositions);
  auto batch = batch_of(random_tokens(2, 6));
  batch.segment = torch::tensor({0, 0, 1, 1, 1, 0, 0, 0, 0, -1}, torch::kInt32).view({2, 5});
  const auto table = toy.model->named_parameters()["position_embedding.weight"];
  const auto gradient =
      torch::autograd::grad({toy.model->loss(batch, ForwardContext{}).sum}, {table})[0];
  // Positions 0 1 0 1 2 and 0 1 2 3 0: none is beyond 3.
  EXPECT_TRUE(gradient.slice(0, 0, 4).ne(0).all().item<bool>());
  EXPECT_TRUE(gradient.slice(0, 4).eq(0).all().item<bool>());
  expect_gradients(
      [&](const Tensors&) -> Tensors { return {toy.model->loss(batch, ForwardContext{}).sum}; },
      toy.model->parameters());
}

TEST(StackLanguageModelTest, LearnedPositionsContinueInEachRow) {
  const Toy toy(/*tie=*/false, /*scale=*/false, kPositions);
  const auto tokens = random_tokens(2, kPositions);
  const auto expected = toy.logits(tokens);
  const auto state = toy.state(2);
  const auto piece = torch::stack({tokens[0].slice(0, 0, 6), tokens[1].slice(0, 0, 6)});
  toy.model->extend(piece, torch::tensor({6, 2}, torch::kInt64), *state, Want::kLast);
  // The first row's filler would lie at positions 7 to 10.
  const auto next = torch::zeros({2, 5}, torch::kInt64);
  next[0][0] = tokens[0][6];
  next[1].copy_(tokens[1].slice(0, 2, 7));
  const auto logits =
      toy.model->extend(next, torch::tensor({1, 5}, torch::kInt64), *state, Want::kLast);
  expect_close(logits, expected.select(1, 6));
  const auto last = toy.model->extend(tokens.slice(1, 7), {}, *state, Want::kLast);
  expect_close(last, expected.select(1, 7));
  EXPECT_THAT(error_of([&] { toy.model->extend(tokens.slice(1, 7), {}, *state, Want::kLast); }),
              HasSubstr("position 8 is past the model's 8 learned positions"));
  EXPECT_THAT(error_of([&] {
                toy.model->loss(batch_of(random_tokens(1, kPositions + 2)), ForwardContext{});
              }),
              HasSubstr("position 8 is past the model's 8 learned positions"));
}

TEST(StackLanguageModelTest, OnlyScoredColumnsAreAskedFor) {
  const Toy toy;
  auto batch = batch_of(random_tokens(2, 8));
  batch.targets.narrow(1, 1, 4).fill_(kIgnored);
  batch.targets[1][6] = kIgnored;
  batch.weights = torch::rand({2, 7}, seeded(4), torch::kFloat32);
  const auto expected = toy.model->loss(batch, ForwardContext{});
  batch.scored = torch::tensor({0, 5, 6, 0, 2, 5}, torch::kInt64).view({2, 3});
  const auto loss = toy.model->loss(batch, ForwardContext{});
  EXPECT_THAT(toy.stack->wanted, ElementsAre(Want::kAll, Want::kSome));
  expect_close(loss.sum, expected.sum);
  expect_close(loss.nll.nan_to_num(), expected.nll.nan_to_num());
  EXPECT_TRUE(torch::equal(loss.nll.isnan(), batch.targets == kIgnored));
  EXPECT_FALSE(loss.nll.requires_grad());
}

TEST(StackLanguageModelTest, PiecesEqualTheWhole) {
  const Toy toy;
  const auto tokens = random_tokens(2, 9);
  const auto expected = toy.logits(tokens);
  const auto state = toy.state(2);
  const auto first = toy.model->extend(tokens.narrow(1, 0, 4), {}, *state, Want::kAll);
  EXPECT_FALSE(toy.model->extend(tokens.narrow(1, 4, 3), {}, *state, Want::kNothing).defined());
  EXPECT_FALSE(state->next_logits.defined());
  const auto last = toy.model->extend(tokens.narrow(1, 7, 2), {}, *state, Want::kLast);
  expect_close(first, expected.narrow(1, 0, 4));
  expect_close(last, expected.select(1, 8));
  expect_close(state->next_logits, last, 0);
  EXPECT_TRUE(torch::equal(state->lengths, torch::full({2}, 9, torch::kInt64)));
  EXPECT_FALSE(last.requires_grad());
}

TEST(StackLanguageModelTest, RowsOfDifferentLengths) {
  const Toy toy;
  const auto tokens = random_tokens(2, 7);
  const auto expected = toy.logits(tokens);
  const auto state = toy.state(2);
  const auto lengths = torch::tensor({3, 5}, torch::kInt64);
  const auto logits = toy.model->extend(tokens.narrow(1, 0, 5), lengths, *state, Want::kLast);
  expect_close(logits, torch::stack({expected[0][2], expected[1][4]}));
  EXPECT_TRUE(torch::equal(state->lengths, lengths));
  const auto next = torch::stack({tokens[0][3], tokens[1][5]}).unsqueeze(1);
  const auto after = toy.model->extend(next, {}, *state, Want::kLast);
  expect_close(after, torch::stack({expected[0][3], expected[1][5]}));
  EXPECT_TRUE(torch::equal(toy.stack->positions, lengths.unsqueeze(1)));
}

TEST(StackLanguageModelTest, ASelectedStateGoesItsOwnWay) {
  const Toy toy;
  const auto tokens = random_tokens(2, 7);
  const auto state = toy.state(2);
  toy.model->extend(tokens, {}, *state, Want::kLast);
  const auto bytes = state->bytes();
  const auto selected = state->select(torch::tensor({1, 0, 1}, torch::kInt64));
  expect_close(selected->next_logits, state->next_logits.index({torch::tensor({1, 0, 1})}), 0);
  EXPECT_EQ(selected->bytes() * 2, bytes * 3);
  const auto more = torch::tensor({3, 3, 4}, torch::kInt64).unsqueeze(1);
  const auto logits = toy.model->extend(more, {}, *selected, Want::kLast);
  expect_close(logits[1], toy.model->extend(torch::full({2, 1}, 3, torch::kInt64), {}, *state,
                                            Want::kLast)[0]);
  EXPECT_GT((logits[0] - logits[2]).abs().max().item<double>(), 1e-3);
  EXPECT_TRUE(torch::equal(selected->lengths, torch::full({3}, 8, torch::kInt64)));
}

TEST(StackLanguageModelTest, ScoringInPiecesEqualsTheLoss) {
  const Toy toy;
  auto batch = batch_of(random_tokens(2, 10));
  batch.targets.narrow(1, 2, 4).fill_(kIgnored);
  const auto expected = toy.model->loss(batch, ForwardContext{}).nll;
  const auto state = toy.state(2);
  Tensors pieces;
  toy.stack->wanted.clear();
  for (const auto& [begin, n] : std::vector<std::pair<int64_t, int64_t>>{{0, 2}, {2, 3}, {5, 4}}) {
    pieces.push_back(toy.model->extend_nll(batch.tokens.narrow(1, begin, n),
                                           batch.targets.narrow(1, begin, n), {}, *state));
  }
  const auto nll = torch::cat(pieces, 1);
  expect_close(nll.nan_to_num(), expected.nan_to_num());
  EXPECT_TRUE(torch::equal(nll.isnan(), expected.isnan()));
  EXPECT_THAT(toy.stack->wanted, ElementsAre(Want::kAll, Want::kNothing, Want::kAll));
  EXPECT_TRUE(torch::equal(state->lengths, torch::full({2}, 9, torch::kInt64)));
}

TEST(StackLanguageModelTest, StateCarriesTheRunner) {
  struct Counter : LayerRunner {
    int calls = 0;
    Tensors run(torch::nn::Module&, const Tensors& inputs, const LayerFunction& f) override {
      ++calls;
      return f(inputs);
    }
  } counter;
  const Toy toy;
  const auto state =
      toy.model->make_state({.batch = 1, .dtype = torch::kFloat64, .runner = &counter});
  toy.model->extend(random_tokens(1, 3), {}, *state, Want::kLast);
  toy.model->extend(random_tokens(1, 1), {}, *state->select(torch::zeros({1}, torch::kInt64)),
                    Want::kLast);
  EXPECT_EQ(counter.calls, 2);
}

TEST(StackLanguageModelTest, LogitsOfBFloat16AreFloat32) {
  const Toy toy;
  materialise_random(*toy.model, 1, torch::kBFloat16);
  const auto state = toy.model->make_state({.batch = 2, .dtype = torch::kBFloat16});
  EXPECT_EQ(toy.model->extend(random_tokens(2, 3), {}, *state, Want::kLast).scalar_type(),
            torch::kFloat32);
  EXPECT_EQ(state->next_logits.scalar_type(), torch::kFloat32);
}

TEST(StackLanguageModelTest, FlopsAreTheStacksAndTheHeads) {
  const Toy toy;
  const double proj = 2.0 * kD * kD, head = 2.0 * kD * kV;
  EXPECT_THAT(toy.model->flops(Phase::kTrain, 10, 3).parts,
              ElementsAre(Pair("layers", 3 * 30 * proj), Pair("head", 3 * 30 * head)));
  EXPECT_THAT(toy.model->flops(Phase::kPrefill, 10, 3).parts,
              ElementsAre(Pair("layers", 30 * proj), Pair("head", 3 * head)));
  EXPECT_THAT(toy.model->flops(Phase::kDecode, 10, 3).parts,
              ElementsAre(Pair("layers", 3 * proj), Pair("head", 3 * head)));
  EXPECT_EQ(toy.model->state_bytes(10, torch::kFloat64).total(), toy.state(1)->bytes());
}

TEST(StackLanguageModelTest, Errors) {
  const Toy toy;
  const auto state = toy.state(2);
  const auto tokens = random_tokens(2, 3);
  const auto extend = [&](const Tensor& ids, const Tensor& lengths, Want want) {
    return error_of([&] { toy.model->extend(ids, lengths, *state, want); });
  };
  EXPECT_THAT(extend(torch::full({2, 3}, kV, torch::kInt64), {}, Want::kLast),
              HasSubstr("token ids from 13 to 13, expected 0 to 12"));
  EXPECT_THAT(extend(torch::full({2, 3}, -1, torch::kInt64), {}, Want::kLast),
              HasSubstr("token ids from -1 to -1, expected 0 to 12"));
  EXPECT_THAT(extend(tokens.narrow(0, 0, 1), {}, Want::kLast),
              HasSubstr("extend: tokens are [1, 3], expected [2, T]"));
  EXPECT_THAT(extend(tokens, torch::tensor({0, 3}, torch::kInt64), Want::kLast),
              HasSubstr("extend: lengths from 0 to 3, expected 1 to 3"));
  EXPECT_THAT(extend(tokens, torch::tensor({1, 4}, torch::kInt64), Want::kNothing),
              HasSubstr("extend: lengths from 1 to 4, expected 0 to 3"));
  EXPECT_THAT(extend(tokens, torch::tensor({1}, torch::kInt64), Want::kLast),
              HasSubstr("extend: lengths are [1], expected [2]"));
  EXPECT_EQ(extend(tokens, torch::tensor({0, 3}, torch::kInt64), Want::kNothing),
            "nothing was thrown");
  EXPECT_TRUE(torch::equal(state->lengths, torch::tensor({0, 3}, torch::kInt64)));
}

}  // namespace
}  // namespace tandem
