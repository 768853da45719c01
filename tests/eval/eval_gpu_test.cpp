#include <cmath>

#include "data/token_file_writer.h"
#include "eval/needle_reader.h"
#include "eval/nll_scorer.h"
#include "eval/task_scores.h"
#include "nn/score.h"
#include "tests/cli/tiny_models.h"
#include "tests/cli/tiny_rows.h"
#include "tests/data/temp_folder.h"
#include "tests/gpu.h"

// Evaluations of a model on a GPU give what they give on the CPU: in float64 but for rounding,
// which ranks, greedy ids and orders do not feel.

namespace tandem {
namespace {

using Ids = std::vector<int64_t>;

Ids ids_of(int64_t n, uint64_t seed) {
  const Tensor ids = random_tokens(1, n, seed);
  return {ids.const_data_ptr<int64_t>(), ids.const_data_ptr<int64_t>() + n};
}

class EvalGpuTest : public OnGpu<testing::TestWithParam<TinyModel>> {
 protected:
  void SetUp() override {
    OnGpu<testing::TestWithParam<TinyModel>>::SetUp();
    if (IsSkipped()) return;
    here_ = make_tiny_model(GetParam().yaml);
    there_ = make_tiny_model(GetParam().yaml);
    for (auto& item : there_->named_parameters())
      materialise(item.value(), item.value().detach().to(gpu_));
  }
  std::shared_ptr<LanguageModel> here_, there_;
};

TEST_P(EvalGpuTest, NeedleReadings) {
  std::vector<NeedleQuestion> questions;
  for (uint64_t i = 0; i < 3; ++i) {  // they share 17 tokens
    NeedleQuestion question;
    question.prompt = ids_of(17, 1);
    const Ids own = ids_of(12 + static_cast<int64_t>(i * 2) % 3, 100 + i);
    question.prompt.insert(question.prompt.end(), own.begin(), own.end());
    for (const int64_t n : {3, 1, 4, 2})
      question.candidates.push_back(ids_of(n, 110 + i + static_cast<uint64_t>(n)));
    questions.push_back(std::move(question));
  }
  for (const int64_t chunk : {7, 100}) {
    const NeedleReaderConfig config{
        .chunk = chunk, .rows = 3, .capacity = 44, .max_new_tokens = 5, .forbidden = {2}};
    NeedleReader here(*here_, config), there(*there_, config);
    const auto expected = here.read(questions), actual = there.read(questions);
    ASSERT_EQ(actual.size(), expected.size());
    for (size_t i = 0; i < expected.size(); ++i) {
      EXPECT_EQ(actual[i].ids, expected[i].ids);
      EXPECT_EQ(actual[i].first_token_rank, expected[i].first_token_rank);
      ASSERT_EQ(actual[i].log_probs.size(), expected[i].log_probs.size());
      for (size_t c = 0; c < expected[i].log_probs.size(); ++c)
        EXPECT_NEAR(actual[i].log_probs[c], expected[i].log_probs[c], 1e-9);
    }
    EXPECT_EQ(there.peak_state_bytes() > 0, true);
  }
}

TEST_P(EvalGpuTest, NllInOnePassAndThroughTheState) {
  const TempFolder folder;
  TokenFileWriter writer(folder / "text", kTinyVocab);
  std::vector<int32_t> document;
  for (const int64_t id : ids_of(120, 21)) document.push_back(static_cast<int32_t>(id));
  writer.add_document(document);
  writer.publish();
  const auto file = std::make_shared<const TokenFile>(folder / "text");
  std::vector<NllSequence> rows;  // of different lengths, one shorter than a block
  for (const auto& [begin, tokens] :
       std::vector<std::pair<int64_t, int64_t>>{{0, 38}, {40, 23}, {70, 3}, {80, 38}})
    rows.push_back({.file = file, .begin = begin, .tokens = tokens});
  for (const int64_t chunk : {0, 11}) {
    SCOPED_TRACE("chunk " + std::to_string(chunk));
    const auto nll_of = [&](LanguageModel& model, torch::Device device) {
      ModelScorer scorer(model, device, chunk, std::nullopt);
      std::vector<std::vector<double>> nll(rows.size());
      scorer.score(rows, [&](const ScoredPart& part) {
        for (size_t t = 0; t < part.columns.targets.size(); ++t)
          nll[part.row].push_back(part.columns.targets[t] == kIgnored ? NAN : part.nll[t]);
      });
      return nll;
    };
    const auto expected = nll_of(*here_, torch::kCPU), actual = nll_of(*there_, gpu_);
    int scored = 0;
    for (size_t b = 0; b < rows.size(); ++b) {
      ASSERT_EQ(actual[b].size(), expected[b].size());
      for (size_t t = 0; t < expected[b].size(); ++t) {
        ASSERT_EQ(std::isnan(actual[b][t]), std::isnan(expected[b][t]));
        if (std::isnan(expected[b][t])) continue;
        EXPECT_NEAR(actual[b][t], expected[b][t], 1e-9);
        ++scored;
      }
    }
    EXPECT_GT(scored, 50);
  }
}

TEST_P(EvalGpuTest, ScoresOfRequestsAndSequences) {
  std::vector<TokenRequest> requests;
  uint64_t seed = 50;
  for (const auto& [context, continuation] :
       std::vector<std::pair<int64_t, int64_t>>{{5, 2}, {1, 1}, {9, 3}, {12, 12}, {3, 5}})
    requests.push_back(
        {.context = ids_of(context, ++seed), .continuation = ids_of(continuation, ++seed)});
  for (const bool greedy : {false, true}) {
    const auto expected = score_requests(*here_, requests, torch::kCPU, 3, greedy),
               actual = score_requests(*there_, requests, gpu_, 3, greedy);
    for (size_t i = 0; i < requests.size(); ++i) {
      EXPECT_NEAR(actual[i].log_prob, expected[i].log_prob, 1e-9) << i;
      EXPECT_EQ(actual[i].greedy, expected[i].greedy) << i;
    }
  }
  const std::vector<Ids> sequences = {ids_of(9, 70), ids_of(24, 71), ids_of(5, 72)};
  const auto expected = log_probs(*here_, sequences, torch::kCPU, 2),
             actual = log_probs(*there_, sequences, gpu_, 2);
  for (size_t b = 0; b < sequences.size(); ++b) {
    ASSERT_EQ(actual[b].size(), expected[b].size());
    for (size_t t = 0; t < expected[b].size(); ++t) {
      ASSERT_EQ(std::isnan(actual[b][t]), std::isnan(expected[b][t]));
      if (std::isnan(expected[b][t])) continue;
      EXPECT_NEAR(actual[b][t], expected[b][t], 1e-5);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Models, EvalGpuTest, testing::ValuesIn(tiny_models()),
                         [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace tandem
