#include "nn/language_model.h"

#include <algorithm>
#include <cmath>

#include "nn/recomputing_runner.h"
#include "tests/cli/tiny_models.h"
#include "tests/cli/tiny_rows.h"

// What every model promises, whatever its family.

namespace tandem {
namespace {

constexpr int64_t kVocab = kTinyVocab, kLength = kTinyLength;

Tensor integers(const std::vector<int64_t>& values) { return torch::tensor(values, torch::kInt64); }

class LanguageModelTest : public testing::TestWithParam<TinyModel> {
 protected:
  std::unique_ptr<ModelState> make_state(int64_t batch, int64_t capacity = 0) const {
    StateShape shape;
    shape.batch = batch;
    shape.capacity = capacity;
    shape.dtype = torch::kFloat64;
    return model_->make_state(shape);
  }
  Tensor all_logits(const Tensor& tokens) const {
    const auto state = make_state(tokens.size(0), tokens.size(1));
    return model_->extend(tokens, {}, *state, Want::kAll);
  }
  /// What is left of [B, T, ...] without the columns to which the model gives no probability.
  Tensor predicted(const Tensor& x) const { return x.slice(1, first_); }
  /// The same of one row by training's forward pass, as log-probabilities: the row once for each
  /// id, which is its target everywhere.
  Tensor training_log_probs(const Tensor& row) const {
    const torch::NoGradGuard no_grad;
    const Tensor targets = torch::arange(kVocab).unsqueeze(1).repeat({1, row.size(1)});
    return -model_->loss(batch_of(row.repeat({kVocab, 1}), targets), {})
                .nll.t()
                .unsqueeze(0);  // [1, T, V]
  }
  /// Of one document from column `begin` on.
  void leave_out_what_has_no_probability(Tensor& targets, int64_t begin = 0) const {
    targets.narrow(1, begin, first_).fill_(kIgnored);
  }
  Batch batch_of(const Tensor& tokens, const Tensor& all_targets) const {
    Tensor targets = all_targets.clone();
    leave_out_what_has_no_probability(targets);
    Batch batch;
    batch.tokens = tokens;
    batch.targets = targets;
    batch.total_weight = static_cast<double>((targets >= 0).sum().item<int64_t>());
    return batch;
  }
  std::shared_ptr<LanguageModel> model_ = make_tiny_model(GetParam().yaml);
  const int64_t first_ = model_->packing().unscored_prefix;
  Tensor tokens_ = random_tokens(2, kLength, 1);
};

TEST_P(LanguageModelTest, PrefillInAnyCutAndDecodingEqualTraining) {
  const Tensor expected = torch::cat(
      {training_log_probs(tokens_[0].unsqueeze(0)), training_log_probs(tokens_[1].unsqueeze(0))});
  const std::vector<std::vector<int64_t>> cuts = {
      {kLength}, {20, 1, 1, 15}, {3, 17, 16, 1}, std::vector<int64_t>(kLength, 1)};
  for (const auto& cut : cuts) {
    const auto state = make_state(2, /*capacity=*/4);  // grows on the way
    Tensors pieces;
    for (const auto& piece : tokens_.split_with_sizes(cut, 1))
      pieces.push_back(model_->extend(piece, {}, *state, Want::kAll));
    const Tensor logits = torch::cat(pieces, 1);
    expect_close(torch::log_softmax(predicted(logits), -1), predicted(expected));
    EXPECT_TRUE(logits.narrow(1, 0, first_).isnan().all().item<bool>());
    EXPECT_TRUE(torch::equal(state->lengths, torch::full({2}, kLength, torch::kInt64)));
  }
}

TEST_P(LanguageModelTest, LastIsTheLastOfAll) {
  const Tensor lengths = integers({5, kLength});
  const auto all_state = make_state(2), last_state = make_state(2);
  const Tensor all = model_->extend(tokens_, lengths, *all_state, Want::kAll);
  const Tensor last = model_->extend(tokens_, lengths, *last_state, Want::kLast);
  ASSERT_EQ(last.sizes(), (std::vector<int64_t>{2, kVocab}));
  expect_close(last, torch::stack({all[0][4], all[1][kLength - 1]}));
  expect_close(last_state->next_logits, last, 0);
  const Tensor more = random_tokens(2, 1, 2);
  expect_close(model_->extend(more, {}, *last_state, Want::kLast),
               model_->extend(more, {}, *all_state, Want::kAll).squeeze(1));
}

TEST_P(LanguageModelTest, RowsOfDifferentLengthsAreWhatTheyAreAlone) {
  const Tensor tokens = random_tokens(3, 23, 3);
  const std::vector<int64_t> first = {9, 0, 4},
                             second = {2, 11, 1};  // of pieces of 9 and 11 columns
  const auto state = make_state(3);
  const auto piece_of = [&](const std::vector<int64_t>& begins, int64_t width) {
    Tensors rows;
    for (int64_t b = 0; b < 3; ++b) rows.push_back(tokens[b].narrow(0, begins[b], width));
    return torch::stack(
        rows);  // what stands behind a row's length is other text and must not count
  };
  model_->extend(piece_of({0, 0, 0}, 9), integers(first), *state, Want::kNothing);
  const Tensor last = model_->extend(piece_of(first, 11), integers(second), *state, Want::kLast);
  const Tensor next = model_->extend(random_tokens(3, 1, 4), {}, *state, Want::kLast);
  for (int64_t b = 0; b < 3; ++b) {
    const int64_t length = first[b] + second[b];
    const Tensor row =
        torch::cat({tokens[b].narrow(0, 0, length), random_tokens(3, 1, 4)[b]}).unsqueeze(0);
    const Tensor alone = all_logits(row);
    expect_close(last[b], alone[0][length - 1]);
    expect_close(next[b], alone[0][length]);
  }
}

TEST_P(LanguageModelTest, ALaterTokenNeverReachesBack) {
  Tensor changed = tokens_.clone();
  constexpr int64_t kAt = 19;
  changed.select(1, kAt).add_(1).remainder_(kVocab);
  const Tensor before = all_logits(tokens_), after = all_logits(changed);
  expect_close(predicted(after.narrow(1, 0, kAt)), predicted(before.narrow(1, 0, kAt)), 0);
  EXPECT_GT((after - before).narrow(1, kAt, 1).abs().max().item<double>(), 1e-3);
  EXPECT_GT((after - before).narrow(1, kAt + 1, 1).abs().max().item<double>(), 1e-6);
}

using Named = std::vector<std::pair<std::string, Tensor>>;

// Of a block that has been begun, the token decoder's keys and values stay only where logits of
// what follows were asked for.
Named kept_by_every_call(const ModelState& state) {
  Named kept;
  for (const auto& [name, tensor] : state.tensors()) {
    if (!name.starts_with("token_decoder.")) kept.emplace_back(name, tensor);
  }
  return kept;
}

TEST_P(LanguageModelTest, TheStateIsTheSameWhateverWasWanted) {
  const Tensor lengths = integers({kLength, 21});
  const auto expected = make_state(2);
  model_->extend(tokens_, lengths, *expected, Want::kAll);
  for (const Want want : {Want::kNothing, Want::kLast}) {
    const auto state = make_state(2);
    const Tensor output = model_->extend(tokens_, lengths, *state, want);
    EXPECT_EQ(output.defined(), want == Want::kLast);
    const auto held = kept_by_every_call(*state), expected_held = kept_by_every_call(*expected);
    ASSERT_EQ(held.size(), expected_held.size());
    for (size_t i = 0; i < held.size(); ++i) {
      EXPECT_EQ(held[i].first, expected_held[i].first);
      // The block decoder's output is computed for one block or for all: equal but for rounding.
      expect_close(held[i].second, expected_held[i].second, held[i].first == "context" ? 1e-12 : 0);
    }
    EXPECT_TRUE(torch::equal(state->lengths, lengths));
  }
}

TEST_P(LanguageModelTest, ScoringInPiecesEqualsTheLoss) {
  Tensor targets = random_tokens(2, kLength, 5);
  targets[0][3] = kIgnored;
  targets[1].narrow(0, 15, 9).fill_(kIgnored);
  leave_out_what_has_no_probability(targets);
  const Loss loss = model_->loss(batch_of(tokens_, targets), {});
  const auto state = make_state(2);
  Tensors pieces;
  int64_t begin = 0;
  for (const int64_t n : {15, 9, 1, 12}) {  // the second piece scores row 0 only
    pieces.push_back(
        model_->extend_nll(tokens_.narrow(1, begin, n), targets.narrow(1, begin, n), {}, *state));
    begin += n;
  }
  const Tensor nll = torch::cat(pieces, 1);
  EXPECT_TRUE(torch::equal(nll.isnan(), targets == kIgnored));
  EXPECT_TRUE(torch::equal(loss.nll.isnan(), targets == kIgnored));
  expect_close(nll.nan_to_num(), loss.nll.nan_to_num());
  EXPECT_NEAR(loss.sum.item<double>(), loss.nll.nansum().item<double>(), 1e-9);
}

TEST_P(LanguageModelTest, SelectedRowsGoOnAsTheyWere) {
  const auto state = make_state(2);
  const Tensor lengths = integers({kLength, 8});
  model_->extend(tokens_, lengths, *state, Want::kLast);
  const Tensor rows = integers({1, 1, 0});
  const auto selected = state->select(rows);
  expect_close(selected->next_logits, state->next_logits.index_select(0, rows), 0);
  const Tensor more = random_tokens(3, 4, 6);
  const Tensor actual = model_->extend(more, {}, *selected, Want::kAll);
  for (const auto& [row, from] : {std::pair<int64_t, int64_t>{0, 1}, {1, 1}, {2, 0}}) {
    const int64_t length = lengths[from].item<int64_t>();
    const Tensor whole = torch::cat({tokens_[from].narrow(0, 0, length), more[row]}).unsqueeze(0);
    expect_close(actual[row], all_logits(whole)[0].narrow(0, length, 4));
  }
  const Tensor untouched = model_->extend(more.narrow(0, 0, 2), {}, *state,
                                          Want::kAll);  // what was selected from is as it was
  expect_close(untouched[0],
               all_logits(torch::cat({tokens_[0], more[0]}).unsqueeze(0))[0].narrow(0, kLength, 4));
}

TEST_P(LanguageModelTest, MaskedDocumentsAreWhatTheyAreAlone) {
  constexpr int64_t kBorder = 24;  // between blocks of 2, 3 and 4 tokens
  const Tensor tokens = random_tokens(1, kLength, 8);
  Tensor targets = random_tokens(1, kLength, 7);
  leave_out_what_has_no_probability(targets, kBorder);
  Batch batch = batch_of(tokens, targets);
  batch.segment = torch::zeros({1, kLength}, torch::kInt32);
  batch.segment.narrow(1, kBorder, kLength - kBorder).fill_(1);
  const Tensor packed = model_->loss(batch, {}).nll;
  const auto alone = [&](int64_t begin, int64_t n) {
    return model_->loss(batch_of(tokens.narrow(1, begin, n), targets.narrow(1, begin, n)), {}).nll;
  };
  const Tensor apart = torch::cat({alone(0, kBorder), alone(kBorder, kLength - kBorder)}, 1);
  EXPECT_TRUE(torch::equal(packed.isnan(), apart.isnan()));
  expect_close(packed.nan_to_num(), apart.nan_to_num());
}

TEST_P(LanguageModelTest, StateBytesAreThoseOfTheState) {
  const auto state = make_state(2);
  model_->extend(tokens_, {}, *state, Want::kLast);
  EXPECT_EQ(2 * model_->state_bytes(kLength, torch::kFloat64).total(), state->bytes());
}

// Gradients of all parameters that have one.
Named gradients_of(LanguageModel& model, const Batch& batch, LayerRunner* runner = nullptr) {
  ForwardContext context;
  context.runner = runner;
  context.training = true;
  model.zero_grad();
  model.loss(batch, context).sum.backward();
  Named named;
  for (const auto& parameter : model.named_parameters()) {
    const Tensor& gradient = parameter.value().grad();
    if (gradient.defined()) named.emplace_back(parameter.key(), gradient.clone());
  }
  return named;
}

Batch with_all_columns(Batch batch) {
  batch.scored = Tensor();
  return batch;
}

TEST_P(LanguageModelTest, FewScoredTargetsGiveTheLossOfAllColumns) {
  for (const bool documents : {false, true}) {
    for (const bool weights : {false, true}) {
      SCOPED_TRACE(std::string(documents ? "documents " : "") + (weights ? "weights" : ""));
      const Batch batch = make_batch(sparse_rows(*model_, documents, weights), torch::kCPU),
                  all = with_all_columns(batch);
      ASSERT_TRUE(batch.scored.defined());
      const Loss loss = model_->loss(batch, {}), expected = model_->loss(all, {});
      expect_close(loss.sum, expected.sum);
      EXPECT_TRUE(torch::equal(loss.nll.isnan(), batch.targets == kIgnored));
      EXPECT_TRUE(torch::equal(expected.nll.isnan(), batch.targets == kIgnored));
      expect_close(loss.nll.nan_to_num(), expected.nll.nan_to_num());
      const Named gradients = gradients_of(*model_, batch),
                  expected_gradients = gradients_of(*model_, all);
      ASSERT_EQ(gradients.size(), model_->parameters().size());
      for (size_t i = 0; i < gradients.size(); ++i) {
        SCOPED_TRACE(gradients[i].first);
        expect_close(gradients[i].second, expected_gradients[i].second);
      }
    }
  }
}

TEST_P(LanguageModelTest, NothingScoredIsALossOfZero) {
  const auto rows = sparse_rows(*model_, false, false);
  const Batch batch = make_batch({rows[1], rows[1]}, torch::kCPU);
  const Loss loss = model_->loss(batch, {});
  EXPECT_EQ(loss.sum.item<double>(), 0);
  EXPECT_TRUE(loss.nll.isnan().all().item<bool>());
  for (const auto& [name, gradient] : gradients_of(*model_, batch)) {
    EXPECT_EQ(gradient.abs().max().item<double>(), 0) << name;
  }
}

// Notes what enters layers that read keys and values of others.
struct CrossLayerRecorder : LayerRunner {
  std::vector<int64_t> n_queries, n_keys;
  Tensors run(torch::nn::Module&, const Tensors& inputs, const LayerFunction& f) override {
    if (inputs.size() == 3) {
      n_queries.push_back(inputs[0].size(1));
      n_keys.push_back(inputs[1].size(1));
    }
    return f(inputs);
  }
};

TEST_P(LanguageModelTest, OnlyScoredColumnsEnterTheCrossDecoder) {
  if (model_->packing().multiple > 1) GTEST_SKIP() << "blocks enter it, not columns";
  CrossLayerRecorder recorder;
  ForwardContext context;
  context.runner = &recorder;
  model_->loss(make_batch(sparse_rows(*model_, false, false), torch::kCPU), context);
  EXPECT_EQ(recorder.n_queries, std::vector<int64_t>(recorder.n_queries.size(), 5));
  EXPECT_EQ(recorder.n_keys, std::vector<int64_t>(recorder.n_keys.size(), kLength));
  EXPECT_EQ(!recorder.n_queries.empty(), model_->named_children().contains("cross_decoder"));
}

struct CountingRunner : LayerRunner {
  RecomputingRunner recomputing;
  int64_t calls = 0;
  Tensors run(torch::nn::Module& layer, const Tensors& inputs, const LayerFunction& f) override {
    const auto counted = [this, f](const Tensors& in) {
      ++calls;
      return f(in);
    };
    return recomputing.run(layer, inputs, counted);
  }
};

void expect_equal(const Named& actual, const Named& expected) {
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(actual[i].first, expected[i].first);
    EXPECT_TRUE(torch::equal(actual[i].second, expected[i].second)) << expected[i].first;
  }
}

TEST_P(LanguageModelTest, RecomputedLayersGiveTheSameGradientsToTheBit) {
  for (const auto dtype : {torch::kFloat64, torch::kFloat32, torch::kBFloat16}) {
    const auto model = make_tiny_model(GetParam().yaml, dtype);
    for (const bool few : {false, true}) {
      SCOPED_TRACE(std::string(c10::toString(dtype)) + (few ? ", few are scored" : ""));
      const Batch batch = few ? make_batch(sparse_rows(*model_, true, true), torch::kCPU)
                              : batch_of(tokens_, random_tokens(2, kLength, 9));
      const Named expected = gradients_of(*model, batch);
      CountingRunner runner;
      expect_equal(gradients_of(*model, batch, &runner), expected);
      EXPECT_GE(runner.calls, 2 * model->n_layers());  // forward and again in backward
      for (const auto& [name, gradient] : expected)
        EXPECT_GT(gradient.abs().max().item<double>(), 0) << name;
    }
  }
}

// The first layer's input needs no gradient then, its parameters do.
TEST_P(LanguageModelTest, RecomputedLayersBehindAFrozenEmbeddingTrain) {
  const Batch batch = batch_of(tokens_, random_tokens(2, kLength, 9));
  size_t n_trained = 0;
  for (auto& parameter : model_->named_parameters()) {
    const bool frozen = parameter.key().ends_with("embedding.weight");
    if (frozen) parameter.value().requires_grad_(false);
    n_trained += !frozen;
  }
  const Named expected = gradients_of(*model_, batch);
  EXPECT_EQ(expected.size(), n_trained);
  EXPECT_LT(n_trained, model_->parameters().size());
  RecomputingRunner runner;
  expect_equal(gradients_of(*model_, batch, &runner), expected);
}

/// RoBERTa's tables have a row for its padding, row 1, that is used and gets no gradient.
bool frozen_row_of(const LanguageModel& model, const Tensor& parameter) {
  const auto parameters = model.named_parameters();
  if (!parameters.contains("embedder.type_embedding.weight")) return false;
  return parameter.is_same(parameters["embedder.embedding.weight"]) ||
         parameter.is_same(parameters["embedder.position_embedding.weight"]);
}

// Along one random direction of all parameters together.
TEST_P(LanguageModelTest, TheLossHasTheGradientOfItsDifferences) {
  const Batch batch = batch_of(random_tokens(1, 11, 10), random_tokens(1, 11, 12));
  model_->zero_grad();
  model_->loss(batch, {}).sum.backward();
  const torch::NoGradGuard no_grad;
  auto generator = seeded(13);
  Tensors directions;
  double expected = 0;
  for (const auto& parameter : model_->parameters()) {
    directions.push_back(torch::randn(parameter.sizes(), generator, torch::kFloat64));
    if (frozen_row_of(*model_, parameter)) directions.back()[1].zero_();
    expected += (directions.back() * parameter.grad()).sum().item<double>();
  }
  const auto loss_at = [&](double step) {
    auto parameters = model_->parameters();
    for (size_t i = 0; i < parameters.size(); ++i) parameters[i].add_(directions[i], step);
    const double loss = model_->loss(batch, {}).sum.item<double>();
    for (size_t i = 0; i < parameters.size(); ++i) parameters[i].sub_(directions[i], step);
    return loss;
  };
  constexpr double kStep = 1e-6;
  EXPECT_NEAR((loss_at(kStep) - loss_at(-kStep)) / (2 * kStep), expected,
              1e-5 * (1 + std::abs(expected)));
}

TEST_P(LanguageModelTest, SixteenBitsAreCloseToSixtyFour) {
  const auto model = make_tiny_model(GetParam().yaml, torch::kBFloat16);
  const Batch batch = batch_of(tokens_, random_tokens(2, kLength, 14));
  const Tensor expected = model_->loss(batch, {}).nll;
  const Loss loss = model->loss(batch, {});
  EXPECT_EQ(loss.nll.scalar_type(), torch::kFloat32);
  expect_close(predicted(loss.nll), predicted(expected), 0.2);
  loss.sum.backward();
  for (const auto& parameter : model->named_parameters()) {
    EXPECT_TRUE(parameter.value().grad().isfinite().all().item<bool>()) << parameter.key();
  }
  StateShape shape;
  shape.batch = 2;
  shape.dtype = torch::kBFloat16;
  const auto state = model->make_state(shape);
  Tensors pieces;
  int64_t begin = 0;
  for (const int64_t n : {20, 1, 16}) {
    pieces.push_back(model->extend_nll(tokens_.narrow(1, begin, n),
                                       batch.targets.narrow(1, begin, n), {}, *state));
    begin += n;
  }
  expect_close(predicted(torch::cat(pieces, 1)), predicted(expected), 0.2);
}

/// Logits of `tokens` in pieces, from a state of `dtype`; leaves the state.
Tensor logits_from(LanguageModel& model, const Tensor& tokens, torch::Dtype dtype,
                   std::unique_ptr<ModelState>& state, std::vector<int64_t> pieces) {
  StateShape shape;
  shape.batch = tokens.size(0);
  shape.dtype = dtype;
  state = model.make_state(shape);
  Tensors logits;
  for (const auto& piece : tokens.split_with_sizes(pieces, 1))
    logits.push_back(model.extend(piece, {}, *state, Want::kAll));
  return torch::cat(logits, 1);
}

// A key or value is rounded to 8 bits, by at most 2^-9 of itself; tiny layers change what goes
// through them by about as much as goes in, so logits of size 1 to 5 move by a few times that.
TEST_P(LanguageModelTest, ACacheOfSixteenBitsChangesLittleAndTakesHalf) {
  const auto model = make_tiny_model(GetParam().yaml, torch::kFloat32);
  std::unique_ptr<ModelState> wide, narrow;
  const std::vector<int64_t> pieces = {20, 1, 1, 15};
  const Tensor expected = predicted(logits_from(*model, tokens_, torch::kFloat32, wide, pieces));
  const Tensor actual = predicted(logits_from(*model, tokens_, torch::kBFloat16, narrow, pieces));
  EXPECT_EQ(actual.scalar_type(), torch::kFloat32);
  expect_close(actual, expected, 0.1);
  bool any_attended = false;
  const auto held = wide->tensors(), half = narrow->tensors();
  ASSERT_EQ(half.size(), held.size());
  for (size_t i = 0; i < held.size(); ++i) {
    const bool attended = held[i].first.ends_with("keys") || held[i].first.ends_with("values");
    EXPECT_EQ(half[i].second.sizes(), held[i].second.sizes());
    if (held[i].first == "tail") continue;  // token ids
    EXPECT_EQ(half[i].second.scalar_type(), attended ? torch::kBFloat16 : torch::kFloat32)
        << half[i].first;
    any_attended = any_attended || attended;
  }
  EXPECT_EQ(torch::equal(actual, expected), !any_attended);
}

// A code is off by at most 1 / 254 of its head's largest channel, which is about what 16 bits leave
// of a channel in the middle of its binade.
TEST_P(LanguageModelTest, ACacheOfCodesChangesLittleAndTakesAQuarter) {
  const auto model = make_tiny_model(GetParam().yaml, torch::kFloat32);
  std::unique_ptr<ModelState> wide, narrow;
  const std::vector<int64_t> pieces = {20, 1, 1, 15};
  const Tensor expected = predicted(logits_from(*model, tokens_, torch::kFloat32, wide, pieces));
  const Tensor actual = predicted(logits_from(*model, tokens_, torch::kInt8, narrow, pieces));
  EXPECT_EQ(actual.scalar_type(), torch::kFloat32);
  expect_close(actual, expected, 0.15);
  bool any_attended = false;
  for (const auto& [name, tensor] : narrow->tensors()) {
    const bool attended = name.ends_with("keys") || name.ends_with("values");
    EXPECT_EQ(tensor.scalar_type() == torch::kInt8, attended) << name;
    any_attended = any_attended || attended;
  }
  EXPECT_EQ(torch::equal(actual, expected), !any_attended);
  const auto counted =
      model->make_state({.batch = 2, .capacity = kLength, .dtype = torch::kInt8});
  model->extend(tokens_, {}, *counted, Want::kLast);
  EXPECT_EQ(2 * model->state_bytes(kLength, torch::kInt8).total(), counted->bytes());
  // Rows of other lengths, and a selected one.
  const Tensor more = random_tokens(2, 9, 15), lengths = integers({9, 4});
  const auto alone = narrow->select(integers({0}));
  const Tensor last = model->extend(more, lengths, *narrow, Want::kLast);
  expect_close(model->extend(more.narrow(0, 0, 1), {}, *alone, Want::kLast), last.narrow(0, 0, 1),
               1e-3);
}

// In float64, where pieces differ too little to round a key to another neighbour; of codes the
// scale, which is float32, may go to its own.
TEST_P(LanguageModelTest, EveryKeyIsRoundedOnceInWhateverPieceItComes) {
  for (const auto& [dtype, atol] : {std::pair{torch::kBFloat16, 1e-10}, {torch::kInt8, 1e-5}}) {
    std::unique_ptr<ModelState> cut, whole;
    const Tensor in_pieces = logits_from(*model_, tokens_, dtype, cut, {20, 1, 1, 15});
    for (const auto& [name, tensor] : cut->tensors()) {
      if (name.ends_with("state")) GTEST_SKIP() << name << " is float32: a key may round otherwise";
    }
    expect_close(predicted(in_pieces),
                 predicted(logits_from(*model_, tokens_, dtype, whole, {kLength})), atol);
  }
}

TEST_P(LanguageModelTest, ACacheWiderThanTheActivationsHoldsTheSame) {
  const auto model = make_tiny_model(GetParam().yaml, torch::kBFloat16);
  std::unique_ptr<ModelState> wide, narrow;
  const std::vector<int64_t> pieces = {20, 1, 1, 15};
  const Tensor expected = predicted(logits_from(*model, tokens_, torch::kBFloat16, narrow, pieces));
  expect_close(predicted(logits_from(*model, tokens_, torch::kFloat32, wide, pieces)), expected, 0);
  const Tensor more = random_tokens(2, 9, 15), lengths = integers({9, 4});
  expect_close(model->extend(more, lengths, *wide, Want::kLast),
               model->extend(more, lengths, *narrow, Want::kLast), 0);
  for (const auto& [name, tensor] : wide->tensors()) {
    if (name != "tail") {
      EXPECT_EQ(tensor.scalar_type(), torch::kFloat32) << name;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Families, LanguageModelTest, testing::ValuesIn(tiny_models()),
                         [](const auto& model) { return model.param.name; });

}  // namespace
}  // namespace tandem
