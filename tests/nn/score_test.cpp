#include "nn/score.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/nn/block_model.h"
#include "tests/nn/tiny_model.h"

namespace tandem {
namespace {

const std::vector<std::vector<int64_t>> kSequences = {
    {5, 1, 22, 0, 7, 7, 13}, {3}, {11, 4, 9}, {0, 19, 2, 2, 2, 8, 21, 6, 1, 14, 3}, {17, 17}};

// log p of each token from the definition: one token at a time through extend.
std::vector<double> by_hand(LanguageModel& model, const std::vector<int64_t>& tokens) {
  std::vector<double> result(tokens.size(), std::numeric_limits<double>::quiet_NaN());
  auto state = model.make_state({.dtype = torch::kFloat64});
  for (size_t t = 0; t + 1 < tokens.size(); ++t) {
    const auto logits = model.extend(torch::tensor({{tokens[t]}}), {}, *state, Want::kLast);
    result[t + 1] = logits.log_softmax(1)[0][tokens[t + 1]].item<double>();
  }
  return result;
}

std::vector<Row> rows_of(const Packing& packing) {
  std::vector<Row> rows;
  for (const auto& sequence : kSequences) rows.push_back(row_of_sequence(sequence, packing));
  return rows;
}

TEST(ScoreTest, LogProbsAreThoseOfOneTokenAfterTheOther) {
  const auto model = make_recurrent_model();
  for (const int64_t batch : {1, 2, 5, 64}) {
    const auto result = log_probs(*model, kSequences, torch::kCPU, batch);
    ASSERT_EQ(result.size(), kSequences.size());
    for (size_t i = 0; i < kSequences.size(); ++i) {
      const auto expected = by_hand(*model, kSequences[i]);
      ASSERT_EQ(result[i].size(), expected.size());
      EXPECT_TRUE(std::isnan(result[i][0]));
      for (size_t t = 1; t < expected.size(); ++t) {
        EXPECT_NEAR(result[i][t], expected[t], 1e-5)
            << "batch " << batch << ", token " << t;  // rounded to float32
      }
    }
  }
}

TEST(ScoreTest, AModelsUnscoredPrefixHasNoLogProb) {
  const auto whole = make_recurrent_model();
  const auto model = make_recurrent_model(23, {.multiple = 4, .unscored_prefix = 3});
  const auto expected = log_probs(*whole, kSequences, torch::kCPU, 2);
  const auto result = log_probs(*model, kSequences, torch::kCPU, 2);
  for (size_t i = 0; i < kSequences.size(); ++i) {
    for (size_t t = 0; t < kSequences[i].size(); ++t) {
      if (t <= 3)
        EXPECT_TRUE(std::isnan(result[i][t]));
      else
        EXPECT_FLOAT_EQ(result[i][t], expected[i][t]);
    }
  }
}

// log p of each token from the definition: with padding in front, each but the first has one.
std::vector<double> by_hand(const BlockModel& model, const std::vector<int64_t>& tokens) {
  const int64_t padding = model.packing().padding_to_score();
  std::vector<double> result(tokens.size(), std::numeric_limits<double>::quiet_NaN());
  BlockModel::Ids ids = padded(padding, {});
  for (size_t t = 0; t + 1 < tokens.size(); ++t) {
    ids.push_back(tokens[t]);
    if (std::ssize(ids) >= model.packing().multiple)
      result[t + 1] = model.log_prob(ids, tokens[t + 1]);
  }
  return result;
}

TEST(ScoreTest, AModelThatPadsDocumentsScoresEveryTokenButTheFirst) {
  for (const bool pad_documents : {true, false}) {
    const auto model = make_block_model(3, pad_documents);
    for (const int64_t batch : {1, 2, 64}) {
      const auto result = log_probs(*model, kSequences, torch::kCPU, batch);
      for (size_t i = 0; i < kSequences.size(); ++i) {
        const auto expected = by_hand(*model, kSequences[i]);
        ASSERT_EQ(result[i].size(), expected.size());
        for (size_t t = 0; t < expected.size(); ++t) {
          EXPECT_EQ(std::isnan(expected[t]), t < (pad_documents ? 1u : 3u));
          EXPECT_EQ(std::isnan(result[i][t]), std::isnan(expected[t]));
          if (std::isnan(expected[t])) continue;
          EXPECT_NEAR(result[i][t], expected[t], 1e-5);
        }
      }
    }
  }
}

TEST(ScoreTest, PiecesOfRowsWithPaddingInFrontGiveTheNumbersOfWholeRows) {
  for (const bool pad_documents : {true, false}) {
    const auto model = make_block_model(4, pad_documents);
    const auto rows = rows_of(model->packing());
    double total = 0;
    for (const auto& sequence : kSequences) {
      for (const double log_p : by_hand(*model, sequence)) total -= std::isnan(log_p) ? 0 : log_p;
    }
    for (const int64_t chunk : {0, 1, 3, 4, 5, 100}) {
      const auto result = score_rows(*model, rows, torch::kCPU, 2, chunk);
      EXPECT_NEAR(result.nll_sum, total, 1e-10) << "chunk " << chunk;
      EXPECT_EQ(result.weight, pad_documents ? 6 + 0 + 2 + 10 + 1 : 3 + 0 + 0 + 7 + 0);
      for (size_t t = 0; t < 3; ++t) EXPECT_EQ(result.count_by_position[t], 0);  // the first block
    }
  }
}

TEST(ScoreTest, ARowMayBeAllPadding) {
  const auto model = make_recurrent_model();
  std::vector<Row> rows = rows_of({});
  rows.push_back({{0, 0}, {kIgnored, kIgnored}, {-1, -1}, 9});
  for (const int64_t chunk : {0, 3})
    EXPECT_EQ(score_rows(*model, rows, torch::kCPU, 64, chunk).weight, 6 + 0 + 2 + 10 + 1);
}

TEST(ScoreTest, RowsSumUpByPosition) {
  const auto model = make_recurrent_model();
  const auto rows = rows_of({.multiple = 1, .unscored_prefix = 1});
  std::vector<double> sums(10), counts(10);
  double total = 0, scored = 0;
  for (const auto& sequence : kSequences) {
    const auto expected = by_hand(*model, sequence);
    for (size_t t = 2; t < sequence.size(); ++t) {
      sums[t - 1] -= expected[t], counts[t - 1] += 1, total -= expected[t], scored += 1;
    }
  }
  for (const int64_t batch : {1, 3, 9}) {
    const auto result = score_rows(*model, rows, torch::kCPU, batch);
    EXPECT_NEAR(result.nll_sum, total, 1e-10);
    EXPECT_EQ(result.weight, scored);
    ASSERT_EQ(result.nll_by_position.size(), 10u);
    EXPECT_EQ(result.count_by_position, counts);
    for (size_t t = 0; t < sums.size(); ++t) EXPECT_NEAR(result.nll_by_position[t], sums[t], 1e-10);
  }
}

TEST(ScoreTest, PiecesGiveTheNumbersOfWholeRows) {
  const auto model = make_recurrent_model();
  const auto rows = rows_of({});
  const auto whole = score_rows(*model, rows, torch::kCPU, 2);
  for (const int64_t chunk : {1, 3, 4, 100}) {
    const auto result = score_rows(*model, rows, torch::kCPU, 2, chunk);
    EXPECT_NEAR(result.nll_sum, whole.nll_sum, 1e-10) << "chunk " << chunk;
    EXPECT_EQ(result.count_by_position, whole.count_by_position);
  }
}

TEST(ScoreTest, TargetsCountAsMuchAsTheyWeigh) {
  const auto model = make_recurrent_model();
  auto rows = rows_of({});
  rows[0].weights = {1, 0, 0.5f, 2, 0, 1};
  rows[4].weights = {0};
  double total = 0, weight = 0;
  std::vector<double> weights(10);
  for (size_t i = 0; i < rows.size(); ++i) {
    const auto expected = by_hand(*model, kSequences[i]);
    for (size_t t = 1; t < expected.size(); ++t) {
      const double w = rows[i].weights.empty() ? 1 : rows[i].weights[t - 1];
      total -= w * expected[t], weight += w, weights[t - 1] += w;
    }
  }
  for (const int64_t chunk : {0, 3}) {
    const auto result = score_rows(*model, rows, torch::kCPU, 2, chunk);
    EXPECT_NEAR(result.nll_sum, total, 1e-10);
    EXPECT_EQ(result.weight, weight);
    EXPECT_EQ(result.count_by_position, weights);
  }
}

std::string error_of_pieces(const std::vector<Row>& rows) {
  try {
    score_rows(*make_recurrent_model(), rows, torch::kCPU, 1, 2);
  } catch (const c10::Error& error) {
    return error.what_without_backtrace();
  }
  return "nothing was thrown";
}

TEST(ScoreTest, PiecesRefuseARowOfSeveralDocuments) {
  const auto model = make_recurrent_model();
  Row row = row_of_sequence(kSequences[0], {});
  row.segment.back() = 1;
  const std::vector<Row> rows = {row};
  EXPECT_NO_THROW(score_rows(*model, rows, torch::kCPU, 1));
  EXPECT_EQ(error_of_pieces(rows),
            "scoring in pieces: a row holds documents 0 and 1, expected one");
}

TEST(ScoreTest, PiecesRefusePaddingBetweenTokens) {
  Row row = row_of_sequence(kSequences[0], {});
  row.segment[2] = -1;
  EXPECT_EQ(error_of_pieces({row}),
            "scoring in pieces: a row holds padding between its tokens, expected in front of them "
            "and behind them only");
}

TEST(ScoreTest, TheNanOfABrokenModelIsNotHidden) {
  const auto model = make_recurrent_model();
  torch::NoGradGuard no_grad;
  model->parameters().front()[2].fill_(
      std::numeric_limits<double>::quiet_NaN());  // embedding of token 2
  const auto result = score_rows(*model, rows_of({}), torch::kCPU, 2);
  EXPECT_TRUE(std::isnan(result.nll_sum));
  EXPECT_EQ(result.weight, 6 + 0 + 2 + 10 + 1);
}

TEST(ScoreTest, ResultsOfDifferentLengthsAdd) {
  ScoreResult sum{
      .nll_sum = 3, .weight = 2, .nll_by_position = {1, 2}, .count_by_position = {1, 1}};
  sum += {.nll_sum = 9, .weight = 3, .nll_by_position = {4, 3, 2}, .count_by_position = {1, 1, 1}};
  EXPECT_EQ(sum.nll_sum, 12);
  EXPECT_EQ(sum.weight, 5);
  EXPECT_EQ(sum.nll_by_position, (std::vector<double>{5, 5, 2}));
  EXPECT_EQ(sum.count_by_position, (std::vector<double>{2, 2, 1}));
}

TEST(ScoreTest, ColumnsAddUpByPositionInTheBlock) {
  ScoreResult result{.nll_sum = 75, .weight = 15, .nll_by_position = {}, .count_by_position = {}};
  for (int t = 0; t < 8; ++t) {  // column t scores slot (t + 1) % 4; the first block is not scored
    result.nll_by_position.push_back(t < 3 ? 0 : 3.0 * t);
    result.count_by_position.push_back(t < 3 ? 0 : 3);
  }
  const ScoreResult slots = by_block_position(result, 4);
  EXPECT_EQ(slots.nll_by_position, (std::vector<double>{9 + 21, 12, 15, 18}));
  EXPECT_EQ(slots.count_by_position, (std::vector<double>{6, 3, 3, 3}));
  EXPECT_EQ(slots.nll_sum, 75);
  EXPECT_EQ(slots.weight, 15);
  EXPECT_EQ(means(slots), (std::vector<double>{5, 4, 5, 6}));
  for (size_t t = 0; t < 3; ++t) EXPECT_TRUE(std::isnan(means(result)[t]));
  EXPECT_EQ(means(result)[3], 3);

  const ScoreResult whole = by_block_position(result, 1);  // blocks of one token
  EXPECT_EQ(whole.nll_by_position, std::vector<double>{75});
  EXPECT_EQ(by_block_position({}, 3).count_by_position, (std::vector<double>{0, 0, 0}));
}

TEST(ScoreTest, NoGraphIsBuilt) {
  const auto model = make_recurrent_model();
  score_rows(*model, rows_of({}), torch::kCPU, 2);
  for (const auto& parameter : model->parameters()) EXPECT_FALSE(parameter.grad().defined());
  EXPECT_TRUE(torch::GradMode::is_enabled());
}

}  // namespace
}  // namespace tandem
