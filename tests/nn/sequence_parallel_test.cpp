#include "nn/sequence_parallel.h"

#include <gmock/gmock.h>

#include "nn/gated_retention_ops.h"
#include "nn/gpt_neox.h"
#include "nn/transformer.h"
#include "tests/nn/sequence_ranks.h"

namespace tandem {
namespace {

Tensor part(const Tensor& x, const Communicator& group) {
  const int64_t n = x.size(1) / group.size();
  return x.narrow(1, group.rank() * n, n);
}

TEST(SequenceParallelTest, GatheredColumnsAndTheirGradients) {
  const auto whole = torch::randn({2, 12, 3}, seeded(1), torch::kFloat64);
  const auto weights = torch::randn({4, 2, 12, 3}, seeded(2), torch::kFloat64);
  for (const int64_t n : {1, 2, 3, 4}) {
    run_ranks(n, [&](Communicator& group) {
      const auto x = part(whole, group).clone().requires_grad_();
      const auto all = gather_columns(x, group);
      expect_close(all, whole, 0);
      (all * weights[group.rank()]).sum().backward();
      expect_close(x.grad(), part(weights.slice(0, 0, n).sum(0), group));
    });
  }
}

TEST(SequenceParallelTest, ColumnsBeforeAndTheirGradients) {
  const auto whole = torch::randn({2, 12, 3}, seeded(1), torch::kFloat64);
  const auto weights = torch::randn({4, 2, 12, 3}, seeded(2), torch::kFloat64);
  for (const int64_t n : {1, 2, 3, 4}) {
    const int64_t own = 12 / n;
    for (const int64_t width : {0, 1, 2, 3, 4, 5, 7, 11, 40}) {
      // What rank r sees of the whole: columns [begin(r), (r + 1) T).
      const auto begin = [&](int64_t r) { return r * own - std::min(width, r * own); };
      auto expected = torch::zeros_like(whole);
      for (int64_t r = 0; r < n; ++r) {
        const int64_t end = (r + 1) * own;
        expected.slice(1, begin(r), end).add_(weights[r].slice(1, begin(r), end));
      }
      run_ranks(n, [&](Communicator& group) {
        const int64_t r = group.rank();
        const auto x = part(whole, group).clone().requires_grad_();
        const auto seen = with_columns_before(x, width, group);
        expect_close(seen, whole.slice(1, begin(r), (r + 1) * own), 0);
        (seen * weights[r].slice(1, begin(r), (r + 1) * own)).sum().backward();
        expect_close(x.grad(), part(expected, group));
      });
    }
  }
}

TEST(SequenceParallelTest, ShiftBackComesFromTheNextRank) {
  run_ranks(3, [](Communicator& group) {
    const auto in = torch::full({2, 2}, static_cast<double>(group.rank() + 1));
    auto out = torch::empty({2, 2});
    group.shift_back(out, in)->wait();
    expect_close(
        out, torch::full({2, 2}, group.rank() == 2 ? 0.0 : static_cast<double>(group.rank() + 2)),
        0);
  });
}

TEST(SequenceParallelTest, DocumentBeforeAColumn) {
  const auto row_segment =
      torch::tensor({-1, 4, 4, -1, -1, 5, -1, -1, -1, -1, -1, 0}, torch::kInt32).view({2, 6});
  const std::vector<std::pair<int64_t, std::vector<int32_t>>> expected = {
      {0, {-1, -1}}, {1, {-1, -1}}, {2, {4, -1}}, {5, {4, -1}}, {6, {5, 0}}};
  for (const auto& [begin, segments] : expected)
    EXPECT_TRUE(
        torch::equal(segment_before(row_segment, begin), torch::tensor(segments, torch::kInt32)))
        << begin;
}

// The state after the last rank is the one process's, on every rank, whatever came before the
// first; gates are open, closed and between.
TEST(SequenceParallelTest, RetentionContinuesAState) {
  const int64_t B = 2, T = 12, H = 3, K = 4, V = 5;
  const auto draw = [&](std::vector<int64_t> sizes, uint64_t seed) {
    return torch::randn(sizes, seeded(seed), torch::kFloat64);
  };
  const auto q = draw({B, T, H, K}, 1), k = draw({B, T, H, K}, 2), v = draw({B, T, H, V}, 3),
             state = draw({B, H, K, V}, 4);
  auto decay = draw({B, T, H}, 5).abs().neg() / 4;
  decay[0][5][1] = -1e4;
  decay[1][8][2] = 0;
  const auto expected = gated_retention(q, k, v, decay, {}, state, {}, 4);
  for (const int64_t n : {2, 3, 4, 12}) {
    run_ranks(n, [&](Communicator& group) {
      const auto of = [&](const Tensor& x) { return part(x, group); };
      const auto retained =
          gated_retention(of(q), of(k), of(v), of(decay), {}, state, {}, 4, &group);
      expect_close(retained.output, of(expected.output));
      expect_close(retained.final_state, expected.final_state);
    });
  }
}

TEST(SequenceParallelTest, SharesOfCausalAttention) {
  EXPECT_THAT(causal_shares(1, 7), testing::ElementsAre(testing::DoubleEq(1)));
  // 3 ranks of 2: 3, 7 and 11 of 21 pairs
  EXPECT_THAT(causal_shares(3, 6),
              testing::ElementsAre(testing::DoubleEq(3 / 21.0), testing::DoubleEq(7 / 21.0),
                                   testing::DoubleEq(11 / 21.0)));
  EXPECT_EQ(imbalance_message(4, 1 << 20),
            "the last of 4 ranks computes 43.7% of the (query, key) pairs of causal attention, the "
            "first 6.3%; an even share is 25.0%");
}

TEST(SequenceParallelTest, WhatIsSentIsSaid) {
  EXPECT_EQ(bytes_message({{{"self_decoder", 3072}, {"shared_kv", 18432}}}),
            "each rank sends 21,504 bytes a micro-batch to the others: self_decoder 3,072, "
            "shared_kv 18,432");
}

TransformerConfig transformer_config() {
  TransformerConfig config;
  config.vocab_size = 19;
  config.d_model = 10;
  config.ffn_dim = 13;
  config.n_layers = 2;
  config.n_heads = 4;
  config.n_kv_heads = 2;
  config.head_dim = 6;
  return config;
}

TEST(SequenceParallelTest, TheTransformersGradientsAreOneProcesss) {
  const auto rows = rows_of_documents(19);
  const MakeModel make = [] { return make_transformer(transformer_config()); };
  const Outcome expected = outcome_of(make, rows, {});
  for (const int64_t n : {2, 3, 4}) {
    for (const bool recompute : {false, true}) {
      SCOPED_TRACE(testing::Message() << n << " ranks, recompute " << recompute);
      expect_same_outcome(outcome_of(make, rows, {.ranks = n, .recompute = recompute}), expected);
    }
  }
}

TEST(SequenceParallelTest, TheTransformerGathersInEveryLayer) {
  const auto bytes =
      make_transformer(transformer_config())
          ->sequence_bytes({.ranks = 3, .batch = 2, .length = 24, .element_size = 2});
  ASSERT_EQ(bytes.parts.size(), 1u);
  EXPECT_EQ(bytes.parts[0].first, "layers (2 of full attention gather all keys and values each)");
  // 16 tokens with 2 G K channels go to 2 ranks in bfloat16, as many gradients come back in float32
  EXPECT_EQ(bytes.parts[0].second, 2 * (16 * (2 * 2 * 6) * 2) * (2 + 4));
}

TEST(SequenceParallelTest, LearnedPositionsCountFromTheWholeRow) {
  GptNeoxConfig config;
  config.vocab_size = 19;
  config.d_model = 12;
  config.ffn_dim = 13;
  config.n_layers = 2;
  config.n_heads = 3;
  config.rope.fraction = 1;
  config.max_positions = 24;
  const MakeModel make = [&] { return make_gpt_neox(config); };
  const std::vector<Row> rows = {row_of_documents({24}, 19, 1), row_of_documents({24}, 19, 2)};
  const Outcome expected = outcome_of(make, rows, {});
  for (const int64_t n : {2, 3})
    expect_same_outcome(outcome_of(make, rows, {.ranks = n}), expected);
}

TEST(SequenceParallelTest, WholeRowsAreRefused) {
  run_ranks(2, [](Communicator& group) {
    const auto model = make_transformer(transformer_config());
    materialise_random(*model, 5);
    ForwardContext context;
    context.sequence = &group;
    try {
      model->loss(make_batch({row_of_documents({6}, 19, 1)}, torch::kCPU), context);
      ADD_FAILURE() << "whole rows were taken";
    } catch (const c10::Error& error) {
      EXPECT_THAT(error.what(),
                  testing::HasSubstr(
                      "loss: ranks divide the rows, expected a batch made for a part of them"));
    }
    EXPECT_THROW(make_batch({row_of_documents({5}, 19, 1)}, torch::kCPU, {group.rank(), 2}),
                 c10::Error);
  });
}

}  // namespace
}  // namespace tandem
