#include "nn/sequence_parallel.h"

#include <gmock/gmock.h>

#include "nn/full_attention.h"
#include "nn/gated_retention.h"
#include "nn/generate.h"
#include "nn/multi_scale_retention.h"
#include "nn/sliding_window_attention.h"
#include "tests/nn/sequence_ranks.h"
#include "yoco/hybrid.h"
#include "yoco/yoco.h"

// YOCO's chunk parallelism: every number is that of one process, and little is sent.

namespace tandem {
namespace {

constexpr int64_t kVocab = 19;

Choice gated_choice(int64_t chunk) {
  Choice choice = mixer_choice("gated_retention");
  auto& mixer = choice.as<GatedRetentionConfig>();
  mixer.n_heads = 3;
  mixer.head_dim = 4;
  mixer.temperature = 1;  // gates that close
  mixer.chunk = chunk;
  return choice;
}
Choice retention_choice() {
  Choice choice = mixer_choice("retention");
  auto& mixer = choice.as<MultiScaleRetentionConfig>();
  mixer.n_heads = 2;
  mixer.head_dim = 6;
  mixer.chunk = 4;
  return choice;
}
Choice window_choice(int64_t window) {
  Choice choice = mixer_choice("sliding_window");
  auto& mixer = choice.as<SlidingWindowConfig>();
  mixer.n_heads = 4;
  mixer.n_kv_heads = 2;
  mixer.head_dim = 4;
  mixer.window = window;
  return choice;
}
Choice attention_choice() {
  Choice choice = mixer_choice("full_attention");
  auto& mixer = choice.as<FullAttentionConfig>();
  mixer.n_heads = 4;
  mixer.n_kv_heads = 2;
  mixer.head_dim = 6;
  return choice;
}

YocoConfig config_of(std::vector<Choice> mixers, int64_t n_cross = 2) {
  YocoConfig config;
  config.vocab_size = kVocab;
  config.d_model = 10;
  config.ffn_dim = 13;
  config.self_decoder.n_layers = 3;
  config.self_decoder.mixers = std::move(mixers);
  config.cross_decoder.n_layers = n_cross;
  config.cross_decoder.n_heads = 4;
  config.cross_decoder.n_kv_heads = 2;
  config.cross_decoder.head_dim = 6;
  return config;
}

struct Case {
  std::string name;
  MakeModel make;
};
std::vector<Case> cases() {
  const auto yoco = [](std::vector<Choice> mixers) -> MakeModel {
    return [mixers] { return make_yoco(config_of(mixers)); };
  };
  std::vector<Case> all = {
      {"gated_retention", yoco({gated_choice(5)})},
      {"chunk_of_one", yoco({gated_choice(1)})},
      {"retention", yoco({retention_choice()})},
      {"window_of_5", yoco({window_choice(5)})},
      {"window_of_29", yoco({window_choice(29)})},
      {"window_of_1", yoco({window_choice(1)})},
      {"mixed", yoco({gated_choice(64), window_choice(9), attention_choice()})}};
  all.push_back({"unstacked", [] {
                   YocoConfig config = config_of({gated_choice(5), window_choice(7)});
                   config.cross_decoder.input = "embeddings";
                   config.tie_embeddings = true;
                   return make_yoco(config);
                 }});
  all.push_back({"hybrid", [] {
                   HybridConfig config;
                   config.vocab_size = kVocab;
                   config.d_model = 10;
                   config.ffn_dim = 13;
                   config.n_layers = 3;
                   config.mixers = {gated_choice(5), attention_choice()};
                   return make_hybrid(config);
                 }});
  return all;
}

class SequenceParallelTest : public testing::TestWithParam<Case> {
 protected:
  void expect_parity(const std::vector<Row>& rows, const std::vector<int64_t>& ranks,
                     bool recompute = false) {
    const Outcome expected = outcome_of(GetParam().make, rows, {});
    for (const int64_t n : ranks) {
      SCOPED_TRACE(testing::Message() << n << " ranks");
      expect_same_outcome(outcome_of(GetParam().make, rows, {.ranks = n, .recompute = recompute}),
                          expected);
    }
  }
};

TEST_P(SequenceParallelTest, GradientsAreOneProcesss) {
  expect_parity(rows_of_documents(kVocab), {2, 3, 4});
}

TEST_P(SequenceParallelTest, OfRowsOfOneDocument) {
  expect_parity({row_of_documents({24}, kVocab, 1), row_of_documents({24}, kVocab, 2)},
                {2, 3, 4, 12, 24});
}

TEST_P(SequenceParallelTest, OfLongerParts) { expect_parity(rows_of_documents(kVocab, 2), {2, 4}); }

TEST_P(SequenceParallelTest, WithRecomputation) {
  expect_parity(rows_of_documents(kVocab), {3}, /*recompute=*/true);
}

// Some ranks hold padding alone, and see and score nothing; their collectives run all the same.
TEST_P(SequenceParallelTest, RanksOfPadding) {
  for (const bool recompute : {false, true}) {
    expect_parity({row_of_documents({7, -17}, kVocab, 1)}, {2, 4}, recompute);
    expect_parity({row_of_documents({-19, 5}, kVocab, 1)}, {3}, recompute);
    expect_parity({row_of_documents({7, -10, 7}, kVocab, 1)}, {4}, recompute);
    expect_parity({row_of_documents({-24}, kVocab, 1)}, {2}, recompute);
  }
}

// Answers alone are scored: the early exit of training, of other columns on each rank, of none on
// some.
TEST_P(SequenceParallelTest, FewWeighedTargets) {
  for (const bool recompute : {false, true}) {
    auto rows = rows_of_documents(kVocab);
    for (size_t r = 0; r < rows.size(); ++r) {
      auto& weights = rows[r].weights;
      weights.assign(24, 0);
      for (size_t t = 12 + r; t < 16 + r; ++t) weights[t] = 0.25f * static_cast<float>(t);
      if (r % 3 == 0) weights[2] = 3;
    }
    expect_parity(rows, {2, 3, 4}, recompute);
  }
}

TEST_P(SequenceParallelTest, BytesFollowTheFormula) {
  const auto model = GetParam().make();
  EXPECT_EQ(model->why_not_sequence_parallel(), "");
  const std::vector<Row> rows = {row_of_documents({24}, kVocab, 1),
                                 row_of_documents({11, 13}, kVocab, 2)};
  for (const int64_t n : {2, 3, 4}) {
    for (const bool recompute : {false, true}) {
      std::vector<double> bytes;
      outcome_of(GetParam().make, rows, {.ranks = n, .recompute = recompute, .bytes = &bytes});
      for (int64_t r = 0; r < n; ++r) {
        SequencePass pass{.ranks = n, .rank = r, .batch = 2, .length = 24, .element_size = 8};
        pass.recompute = recompute;
        EXPECT_DOUBLE_EQ(model->sequence_bytes(pass).total(), bytes[static_cast<size_t>(r)])
            << n << " ranks, rank " << r << ", recompute " << recompute;
      }
    }
  }
}

std::map<std::string, Tensor> held_by(const ModelState& state) {
  std::map<std::string, Tensor> held;
  for (auto& [name, tensor] : state.tensors()) {
    // Caches say nothing behind a row's end; no window here is that long.
    const bool is_cache =
        tensor.dim() == 4 && tensor.size(1) == state.lengths.max().item<int64_t>();
    const Tensor columns = torch::arange(tensor.size(1)).view({1, -1, 1, 1});
    held[name] = is_cache ? tensor * (columns < state.lengths.view({-1, 1, 1, 1})) : tensor.clone();
  }
  held["lengths"] = state.lengths.clone();
  held["next_logits"] = state.next_logits.clone();
  return held;
}

// Prompts of any lengths, in pieces or not, leave every rank the state and the logits of one
// process, and decoding goes on from it.
TEST_P(SequenceParallelTest, PrefillLeavesEveryRankTheWholeState) {
  std::vector<std::vector<int64_t>> prompts;
  for (const int64_t length : {23, 9, 24, 1, 16})
    prompts.push_back(row_of_documents({length}, kVocab, static_cast<uint64_t>(length)).tokens);
  const std::vector<std::vector<int64_t>> equal = {row_of_documents({24}, kVocab, 1).tokens,
                                                   row_of_documents({24}, kVocab, 2).tokens};
  const Tensor next = torch::randint(kVocab, {5, 2}, seeded(3), torch::kInt64);
  for (const auto& of : {prompts, equal}) {
    for (const int64_t chunk : {0, 10, 8}) {
      const auto run = [&](Communicator* sequence) {
        const auto model = GetParam().make();
        materialise_random(*model, 5);
        const auto rows = static_cast<int64_t>(of.size());
        const auto state = model->make_state(
            {.batch = rows, .capacity = 26, .dtype = torch::kFloat64, .sequence = sequence});
        prefill(*model, of, chunk, *state);
        std::vector<std::map<std::string, Tensor>> held = {held_by(*state)};
        for (const auto& token : next.narrow(0, 0, rows).split(1, 1)) {
          model->extend(token, {}, *state, Want::kLast);
          held.push_back(held_by(*state));
        }
        return held;
      };
      const auto expected = run(nullptr);
      for (const int64_t n : {2, 3, 4}) {
        run_ranks(n, [&](Communicator& group) {
          const auto actual = run(&group);
          for (size_t i = 0; i < expected.size(); ++i) {
            for (const auto& [name, tensor] : expected[i]) {
              SCOPED_TRACE(testing::Message() << name << " after " << i << " decoded, chunk "
                                              << chunk << ", " << n << " ranks");
              expect_close(actual[i].at(name), tensor);
            }
          }
        });
      }
    }
  }
}

TEST_P(SequenceParallelTest, ScoringAndLogitsInPieces) {
  const Tensor tokens = torch::randint(kVocab, {2, 23}, seeded(1), torch::kInt64),
               targets = torch::randint(kVocab, {2, 23}, seeded(2), torch::kInt64);
  for (const auto& [dtype, atol] : {std::pair{torch::kFloat64, 1e-10}, {torch::kInt8, 1e-5}}) {
    bool has_float32 = false;  // retention's state beside int8: a key may round otherwise
    const auto run = [&, dtype = dtype](Communicator* sequence) {
      const auto model = GetParam().make();
      materialise_random(*model, 5);
      const StateShape shape{.batch = 2, .capacity = 23, .dtype = dtype, .sequence = sequence};
      const auto scored = model->make_state(shape), asked = model->make_state(shape);
      if (!sequence) {
        for (const auto& [name, tensor] : scored->tensors())
          has_float32 = has_float32 || tensor.scalar_type() == torch::kFloat32;
      }
      Tensors nll, logits;
      int64_t begin = 0;
      for (const int64_t n : {9, 2, 12}) {
        nll.push_back(model->extend_nll(tokens.narrow(1, begin, n), targets.narrow(1, begin, n), {},
                                        *scored));
        logits.push_back(model->extend(tokens.narrow(1, begin, n), {}, *asked, Want::kAll));
        begin += n;
      }
      return Tensors{torch::cat(nll, 1), torch::cat(logits, 1)};
    };
    const Tensors expected = run(nullptr);
    if (has_float32) continue;
    for (const int64_t n : {2, 3, 4}) {
      run_ranks(n, [&, atol = atol](Communicator& group) {
        const Tensors actual = run(&group);
        expect_close(actual[0], expected[0], atol);
        expect_close(actual[1], expected[1], atol);
      });
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Models, SequenceParallelTest, testing::ValuesIn(cases()),
                         [](const auto& one) { return one.param.name; });

double bytes_of(const YocoConfig& config, const std::vector<Row>& rows) {
  std::vector<double> bytes;
  outcome_of([&] { return make_yoco(config); }, rows, {.ranks = 3, .bytes = &bytes});
  return bytes[1];
}

TEST(YocoSequenceBytesTest, TheCrossDecoderSendsTheSameWhateverItsDepth) {
  const std::vector<Row> rows = {row_of_documents({24}, kVocab, 1)};
  EXPECT_EQ(bytes_of(config_of({gated_choice(5)}, 1), rows),
            bytes_of(config_of({gated_choice(5)}, 4), rows));
}

// What grows with the length is the shared keys and values alone: 2 G K of 8 bytes a token, from
// each of 3 ranks to two others, and as many back.
TEST(YocoSequenceBytesTest, RetentionSendsTheSameWhateverTheLength) {
  const YocoConfig config = config_of({gated_choice(5)});
  const double difference = bytes_of(config, {row_of_documents({48}, kVocab, 1)}) -
                            bytes_of(config, {row_of_documents({24}, kVocab, 1)});
  EXPECT_EQ(difference, 8 * (2 * 2 * 6 * 8) * 2 * 2);
}

}  // namespace
}  // namespace tandem
