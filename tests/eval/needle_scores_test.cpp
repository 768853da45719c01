#include "eval/needle_scores.h"

#include <gtest/gtest.h>

#include <cmath>

namespace tandem {
namespace {

using Texts = std::vector<std::string>;

TEST(NeedleScoresTest, SubstringIsThePublishedRule) {
  EXPECT_EQ(substring_score("The number is 4213.", Texts{"4213"}), 1);
  EXPECT_EQ(substring_score("312", Texts{"12"}), 1);  // by chance, as published
  EXPECT_EQ(substring_score("4,213", Texts{"4213"}), 0);
  EXPECT_EQ(substring_score("", Texts{"7"}), 0);
  EXPECT_EQ(substring_score("1111111 and 3333333", Texts{"1111111", "2222222"}), 0.5);
  EXPECT_EQ(substring_score("ABCDEF01-2345-4678-9ABC-DEF012345678",
                            Texts{"abcdef01-2345-4678-9abc-def012345678"}),
            1);
}

TEST(NeedleScoresTest, ExactReadsWholeNumbersAndTheFirstOnes) {
  EXPECT_EQ(exact_score("312", Texts{"12"}), 0);
  EXPECT_EQ(exact_score("is: 12 . 55", Texts{"12"}), 1);
  EXPECT_EQ(exact_score("55 12", Texts{"12"}), 0);  // the first number counts
  EXPECT_EQ(exact_score("no number", Texts{"12"}), 0);
  // Of several, the first so many.
  EXPECT_EQ(exact_score("11, 22 and 33", Texts{"33", "11", "22"}), 1);
  EXPECT_EQ(exact_score("11, 22 and 33", Texts{"11", "33"}), 0.5);
  EXPECT_EQ(exact_score("11, 11", Texts{"11", "22"}), 0.5);
}

TEST(NeedleScoresTest, ExactReadsUuidsAndWords) {
  const Texts uuid = {"abcdef01-2345-4678-9abc-def012345678"};
  EXPECT_EQ(exact_score("it is 7: ABCDEF01-2345-4678-9abc-def012345678.", uuid), 1);
  EXPECT_EQ(exact_score("abcdef01-2345-4678-9abc-def012345679", uuid), 0);
  EXPECT_EQ(exact_score("abcdef01-2345-4678-9abc-def01234567", uuid), 0);
  EXPECT_EQ(exact_score(" Lima, of course", Texts{"lima"}), 1);
  EXPECT_EQ(exact_score(" limanow", Texts{"lima"}), 0);
}

TEST(NeedleScoresTest, EqualValuesShareTheirPlaces) {
  const std::vector<double> others = {-3, -1, -2, -2};
  EXPECT_EQ(needle_rank(0, others).rank, 1);
  EXPECT_EQ(needle_rank(0, others).first, 1);
  EXPECT_EQ(needle_rank(-2, others).rank, 3);  // places 2, 3 and 4
  EXPECT_EQ(needle_rank(-2, others).first, 0);
  EXPECT_EQ(needle_rank(-1, others).rank, 1.5);
  EXPECT_EQ(needle_rank(-1, others).first, 0.5);
  EXPECT_EQ(needle_rank(-4, others).rank, 5);
  EXPECT_EQ(needle_rank(-9, {}).first, 1);
}

TEST(NeedleScoresTest, ScoresAreMeansOverSamples) {
  std::vector<NeedleSample> samples(4);
  for (size_t i = 0; i < 4; ++i) samples[i].outputs = {Texts{"12", "34", "56", "78"}[i]};
  const std::vector<NeedleAnswer> answers = {
      {.text = "12 .", .log_probs = {-1, -2, -3}, .first_token_rank = 1},
      {.text = " 134", .log_probs = {-2, -1, -3}, .first_token_rank = 3},
      {.text = " \n", .log_probs = {-2, -2, -3}, .first_token_rank = 6},
      {.text = "x", .log_probs = {-5, -2, -3}, .first_token_rank = 10}};
  const NeedleScores scores = needle_scores(samples, answers);
  EXPECT_EQ(scores.samples, 4);
  EXPECT_EQ(scores.substring, 0.5);
  EXPECT_EQ(scores.exact, 0.25);
  EXPECT_EQ(scores.nulls, 1);
  EXPECT_EQ(scores.decoy_accuracy, (1 + 0 + 0.5 + 0) / 4);
  EXPECT_EQ(scores.decoy_rank, (1 + 2 + 1.5 + 3) / 4);
  EXPECT_EQ(scores.log_prob, -2.5);
  EXPECT_EQ(scores.first_token_rank, 5);
  EXPECT_EQ(to_json(scores)["decoy_rank"], scores.decoy_rank);

  const std::vector<NeedleAnswer> alone = {{.text = "12", .log_probs = {-1}}};
  const auto json = to_json(needle_scores(std::span<const NeedleSample>(samples).first(1), alone));
  EXPECT_TRUE(json["decoy_accuracy"].is_null());
  EXPECT_TRUE(json["decoy_rank"].is_null());
  EXPECT_EQ(json["log_prob"], -1);
  EXPECT_THROW(needle_scores(samples, alone), std::logic_error);
}

}  // namespace
}  // namespace tandem
