#include "eval/task_metrics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>

namespace tandem {
namespace {

// The metrics by name, worked out by hand below.
std::map<std::string, MetricValue> metrics(const TaskDefinition& task,
                                           const std::vector<TaskItem>& items,
                                           const std::vector<TaskAnswer>& answers) {
  std::map<std::string, MetricValue> named;
  for (const MetricValue& metric : task_metrics(task, items, answers)) named[metric.name] = metric;
  return named;
}

TEST(TaskMetricsTest, ChoicesByLogProbabilityPerCharacterAndPerByte) {
  const TaskDefinition task{.metrics = {"acc", "acc_norm", "acc_bytes"}};
  // lengths 2, 4, 3 and 2, 4, 9: the sums favour place 0, characters (-1.5, -1.25, -1) place 2 and
  // bytes (-1.5, -1.25, -1/3) place 2
  const TaskItem first{.gold = {0}, .characters = {2, 4, 3}, .bytes = {2, 4, 9}};
  const TaskAnswer to_first{.log_probs = {-3, -5, -3}};  // equal sums: the first of them
  // characters (-2, -0.5), bytes (-0.4, -0.5)
  const TaskItem second{.gold = {0, 3}, .characters = {1, 4}, .bytes = {5, 4}};
  const TaskAnswer to_second{.log_probs = {-2, -2}};
  const TaskItem third{.gold = {1}, .characters = {1, 1}, .bytes = {1, 1}};
  const TaskAnswer to_third{.log_probs = {-2, -9}};
  auto got = metrics(task, {first, second, third}, {to_first, to_second, to_third});
  EXPECT_DOUBLE_EQ(got["acc"].value, 2.0 / 3);
  // sample deviation of 1, 1, 0 is sqrt(1/3), over sqrt(3)
  EXPECT_DOUBLE_EQ(*got["acc"].standard_error, 1.0 / 3);
  EXPECT_DOUBLE_EQ(got["acc_norm"].value, 0);
  EXPECT_DOUBLE_EQ(*got["acc_norm"].standard_error, 0);
  EXPECT_DOUBLE_EQ(got["acc_bytes"].value, 1.0 / 3);
  EXPECT_FALSE(metrics(task, {first}, {to_first})["acc"].standard_error.has_value());
}

TEST(TaskMetricsTest, PerplexityIsOfTargetsAndItsErrorFollowsFromTheirMean) {
  const TaskDefinition task{.kind = "likelihood", .metrics = {"ppl", "acc"}};
  const std::vector<TaskAnswer> answers = {{.log_probs = {-1}, .greedy = {true}},
                                           {.log_probs = {-3}, .greedy = {false}},
                                           {.log_probs = {-2}, .greedy = {false}},
                                           {.log_probs = {-6}, .greedy = {false}}};
  auto got = metrics(task, std::vector<TaskItem>(4), answers);
  EXPECT_DOUBLE_EQ(got["ppl"].value, std::exp(3.0));
  // deviations 2, 0, 1, 3: variance 14/3, of the mean 14/12
  EXPECT_DOUBLE_EQ(*got["ppl"].standard_error, std::exp(3.0) * std::sqrt(14.0 / 12));
  EXPECT_DOUBLE_EQ(got["acc"].value, 0.25);
  EXPECT_DOUBLE_EQ(*got["acc"].standard_error, 0.25);  // sqrt(0.75 / 3 / 4)
}

TEST(TaskMetricsTest, TextsAreSummedBeforeTheyAreDivided) {
  const TaskDefinition task{.kind = "rolling", .metrics = {"word_ppl", "byte_ppl", "bpb"}};
  const TaskItem first{.counted_words = 2, .counted_bytes = 10},
      second{.counted_words = 3, .counted_bytes = 30};
  auto got = metrics(task, {first, second}, {{.log_probs = {-4, -1}}, {.log_probs = {-15}}});
  EXPECT_DOUBLE_EQ(got["word_ppl"].value, std::exp(4.0));
  EXPECT_DOUBLE_EQ(got["byte_ppl"].value, std::exp(0.5));
  EXPECT_DOUBLE_EQ(got["bpb"].value, 0.5 / std::log(2.0));
  EXPECT_FALSE(got["bpb"].standard_error.has_value());
}

TEST(TaskMetricsTest, GeneratedTextIsComparedWithEachReference) {
  TaskDefinition task{.kind = "generation", .metrics = {"exact_match", "contains"}};
  const TaskItem item{.references = {"Paris", "the city"}};
  const auto got = [&](const std::string& text) {
    auto named = metrics(task, {item}, {{.generated = text}});
    return std::pair(named["exact_match"].value, named["contains"].value);
  };
  EXPECT_EQ(got("Paris"), std::pair(1.0, 1.0));
  EXPECT_EQ(got("in the city."), std::pair(0.0, 1.0));
  EXPECT_EQ(got("paris"), std::pair(0.0, 0.0));
  task.ignore_case = true;
  EXPECT_EQ(got("paris"), std::pair(1.0, 1.0));
}

TEST(TaskMetricsTest, KindsHaveTheirMetrics) {
  EXPECT_EQ(metrics_of("multiple_choice"),
            (std::vector<std::string>{"acc", "acc_bytes", "acc_norm"}));
  EXPECT_EQ(metrics_of("likelihood"), (std::vector<std::string>{"acc", "ppl"}));
  EXPECT_EQ(metrics_of("rolling"), (std::vector<std::string>{"bpb", "byte_ppl", "word_ppl"}));
  EXPECT_EQ(metrics_of("generation"), (std::vector<std::string>{"contains", "exact_match"}));
  EXPECT_THROW(task_metrics({}, {}, {}), std::logic_error);
}

}  // namespace
}  // namespace tandem
