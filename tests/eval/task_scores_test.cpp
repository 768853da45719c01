#include "eval/task_scores.h"

#include <gtest/gtest.h>

#include <cmath>

#include "nn/score.h"
#include "tests/cli/tiny_models.h"
#include "tests/nn/block_model.h"
#include "tests/nn/tiny_model.h"

namespace tandem {
namespace {

using Ids = std::vector<int64_t>;

// Requests of many lengths, a long continuation and one of length 1 among them.
std::vector<TokenRequest> requests(int64_t vocab_size) {
  std::vector<TokenRequest> list;
  int64_t next = 1;
  for (const auto& [context, continuation] :
       {std::pair(5, 2), {1, 1}, {9, 3}, {2, 70}, {4, 1}, {12, 12}, {3, 5}}) {
    TokenRequest& request = list.emplace_back();
    for (int i = 0; i < context + continuation; ++i) {
      next = next * 5 % 4099;
      (i < context ? request.context : request.continuation).push_back(next % vocab_size);
    }
  }
  return list;
}

Ids whole(const TokenRequest& request) {
  Ids ids = request.context;
  ids.insert(ids.end(), request.continuation.begin(), request.continuation.end());
  return ids;
}

TEST(TaskScoresTest, ScoresAreSumsOverTheContinuationAlone) {
  const auto model = make_recurrent_model();
  const auto asked = requests(23);
  std::vector<double> expected;
  for (const TokenRequest& request : asked) {
    const std::vector<Ids> ids = {whole(request)};
    double sum = 0;
    const auto all = log_probs(*model, ids, torch::kCPU, 1).front();
    for (size_t t = request.context.size(); t < all.size(); ++t) sum += all[t];
    expected.push_back(sum);
  }
  for (const bool greedy : {false, true}) {
    for (const int64_t batch : {1, 3, 100}) {
      int64_t done = 0;
      const auto scores =
          score_requests(*model, asked, torch::kCPU, batch, greedy, [&](int64_t n) { done = n; });
      EXPECT_EQ(done, std::ssize(asked));
      for (size_t i = 0; i < asked.size(); ++i)
        EXPECT_NEAR(scores[i].log_prob, expected[i], 1e-4) << i;  // log_probs() gives float32
    }
  }
}

TEST(TaskScoresTest, GreedyMeansThatEachIdIsTheLikeliest) {
  const auto model = make_recurrent_model();
  auto asked = requests(23);
  for (TokenRequest& request : asked) {  // what greedy decoding gives, but for the even ones' last
    Ids ids = request.context;
    for (int64_t& id : request.continuation) {
      const auto state = model->make_state({.batch = 1, .capacity = 100, .dtype = torch::kFloat64});
      const Tensor tokens = torch::tensor(ids, torch::kInt64).unsqueeze(0);
      id = model->extend(tokens, {}, *state, Want::kLast).argmax().item<int64_t>();
      ids.push_back(id);
    }
  }
  for (size_t i = 0; i < asked.size(); i += 2)
    asked[i].continuation.back() = (asked[i].continuation.back() + 1) % 23;
  for (const int64_t batch : {1, 4}) {
    const auto scores = score_requests(*model, asked, torch::kCPU, batch, true);
    for (size_t i = 0; i < asked.size(); ++i) EXPECT_EQ(scores[i].greedy, i % 2 == 1) << i;
  }
}

TEST(TaskScoresTest, LogitsAreOfContinuationsOnly) {
  const auto model = make_recurrent_model();
  const std::vector<TokenRequest> asked = {{.context = Ids(40, 3), .continuation = {1, 2}}};
  score_requests(*model, asked, torch::kCPU, 1, true);
  ASSERT_EQ(model->calls.size(), 2u);
  EXPECT_EQ(model->calls[0].want, Want::kNothing);
  EXPECT_EQ(model->calls[0].n_tokens, 39);
  EXPECT_EQ(model->calls[1].want, Want::kAll);
  EXPECT_EQ(model->calls[1].n_tokens, 2);
}

TEST(TaskScoresTest, ModelsOfBlocksScoreShortContextsBehindPadding) {
  for (const bool pad_documents : {true, false}) {
    const auto model = make_block_model(4, pad_documents);
    const auto asked = requests(23);
    for (const bool greedy : {false, true}) {
      const auto scores = score_requests(*model, asked, torch::kCPU, 3, greedy);
      for (size_t i = 0; i < asked.size(); ++i) {
        const auto n = std::ssize(asked[i].context);
        const int64_t padding = pad_documents ? 3 : std::max<int64_t>(0, 4 - n);
        auto ids = padded(padding, asked[i].context);
        double expected = 0;
        for (const int64_t id : asked[i].continuation) {
          expected += model->log_prob(ids, id);
          ids.push_back(id);
        }
        EXPECT_NEAR(scores[i].log_prob, expected, 1e-9) << i;
      }
    }
  }
}

// The real families, in rows and through a state.
TEST(TaskScoresTest, EveryFamilyGivesOneScoreBothWays) {
  for (const TinyModel& tiny : tiny_models()) {
    const auto model = make_tiny_model(tiny.yaml);
    auto asked = requests(model->vocab_size());
    const int64_t longest = longest_context(model->packing());
    std::erase_if(asked, [&](const TokenRequest& request) {
      return longest > 0 && std::ssize(whole(request)) > longest + 1;
    });
    ASSERT_GE(asked.size(), 5u);
    const auto rows = score_requests(*model, asked, torch::kCPU, 4, false),
               state = score_requests(*model, asked, torch::kCPU, 4, true);
    for (size_t i = 0; i < asked.size(); ++i) {
      EXPECT_LT(rows[i].log_prob, 0);
      EXPECT_NEAR(rows[i].log_prob, state[i].log_prob, 1e-4 * std::ssize(asked[i].continuation))
          << tiny.name << " " << i;
    }
  }
}

TEST(TaskScoresTest, PositionsThatPaddingTakesAreNotThere) {
  EXPECT_EQ(longest_context({}), 0);
  EXPECT_EQ(longest_context({.max_length = 47}), 47);
  EXPECT_EQ(longest_context({.multiple = 4, .unscored_prefix = 3, .max_length = 47}), 41);
}

}  // namespace
}  // namespace tandem
