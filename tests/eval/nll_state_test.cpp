#include <algorithm>
#include <cmath>

#include "data/token_file_writer.h"
#include "eval/nll_scorer.h"
#include "tests/cli/tiny_models.h"
#include "tests/data/temp_folder.h"
#include "tests/nn/tiny_model.h"

// Scoring through the state is scoring in one pass.

namespace tandem {
namespace {

constexpr int64_t kVocab = 53;

class NllStateTest : public testing::TestWithParam<std::string> {
 protected:
  static std::shared_ptr<const TokenFile> make_file(const std::string& path) {
    std::vector<int32_t> ids;
    const RandomStream random(21);
    for (uint64_t i = 0; i < 120; ++i) ids.push_back(static_cast<int32_t>(random.below(i, kVocab)));
    TokenFileWriter writer(path, kVocab);
    writer.add_document(ids);
    writer.publish();
    return std::make_shared<const TokenFile>(path);
  }
  static std::shared_ptr<LanguageModel> make_model(const std::string& name) {
    const auto& models = tiny_models();
    const auto found = std::find_if(models.begin(), models.end(),
                                    [&](const TinyModel& model) { return model.name == name; });
    return make_tiny_model(found->yaml);
  }
  /// Rows that are scored together: of different lengths, one shorter than a block.
  std::vector<NllSequence> sequences(std::optional<int64_t> bos = {}) const {
    std::vector<NllSequence> rows;
    const std::vector<std::pair<int64_t, int64_t>> places = {{0, 38}, {40, 23}, {70, 3}, {80, 38}};
    for (const auto& [begin, tokens] : places)
      rows.push_back({.file = file_, .begin = begin, .tokens = tokens, .bos = bos});
    return rows;
  }
  /// NLL of each column of each row; NaN where not scored.
  static std::vector<std::vector<double>> nll_of(NllScorer& scorer,
                                                 const std::vector<NllSequence>& rows) {
    std::vector<std::vector<double>> nll(rows.size());
    scorer.score(rows, [&](const ScoredPart& part) {
      auto& own = nll[part.row];
      EXPECT_EQ(std::ssize(own), part.begin) << "parts come in order";
      for (size_t t = 0; t < part.columns.targets.size(); ++t)
        own.push_back(part.columns.targets[t] == kIgnored ? NAN : part.nll[t]);
    });
    return nll;
  }
  static void expect_same(const std::vector<double>& actual, const std::vector<double>& expected) {
    int scored = 0;
    for (size_t t = 0; t < std::max(actual.size(), expected.size()); ++t) {
      const double a = t < actual.size() ? actual[t] : NAN,
                   b = t < expected.size() ? expected[t] : NAN;
      ASSERT_EQ(std::isnan(a), std::isnan(b)) << "column " << t;
      if (std::isnan(a)) continue;
      EXPECT_NEAR(a, b, 1e-10) << "column " << t;
      ++scored;
    }
    EXPECT_GT(scored, 0);
  }

  TempFolder folder_;
  const std::shared_ptr<const TokenFile> file_ = make_file(folder_ / "text");
  const std::shared_ptr<LanguageModel> model_ = make_model(GetParam());
};

TEST_P(NllStateTest, PiecesOfAnyLengthGiveTheNllOfOnePass) {
  for (const std::optional<int64_t> bos : {std::optional<int64_t>(), std::optional<int64_t>(1)}) {
    const auto all = sequences(bos);
    for (const auto& rows : {all, std::vector{all[0]}, std::vector{all[1]}}) {
      ModelScorer whole(*model_, torch::kCPU);
      const auto expected = nll_of(whole, rows);
      for (const int64_t chunk : {5, 16, 1000}) {
        ModelScorer pieces(*model_, torch::kCPU, chunk);
        const auto nll = nll_of(pieces, rows);
        for (size_t b = 0; b < rows.size(); ++b) {
          // a row of three tokens may have no target behind the unscored prefix
          if (rows[b].first_scored(model_->packing()) < rows[b].columns(model_->packing()))
            expect_same(nll[b], expected[b]);
        }
        EXPECT_GT(pieces.state_bytes(), 0);
      }
    }
  }
}

TEST_P(NllStateTest, LastIsTheTailOfTheWholeScore) {
  const auto rows = sequences();
  auto last = rows;
  constexpr int64_t kLast = 6;
  for (NllSequence& row : last) row.unscored = row.targets() - kLast;
  ModelScorer whole(*model_, torch::kCPU);
  const auto all = nll_of(whole, rows);
  const int64_t front = model_->packing().padding_to_score();
  for (const int64_t chunk : {0, 5, 16}) {
    ModelScorer scorer(*model_, torch::kCPU, chunk);
    for (const bool alone : {false, true}) {
      for (const size_t b : {size_t{0}, size_t{1}, size_t{3}}) {
        const auto nll = alone ? nll_of(scorer, {last[b]})[0] : nll_of(scorer, last)[b];
        auto expected = all[b];
        std::fill_n(expected.begin(), front + rows[b].targets() - kLast, NAN);
        expect_same(nll, expected);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Models, NllStateTest,
                         testing::Values("YocoGatedRetention", "YocoSlidingWindow", "Transformer",
                                         "BlockLookupPrefix", "BlockProjectionLlama", "BlockYoco"),
                         [](const auto& model) { return model.param; });

TEST(NllPrefillTest, WhatPrecedesTheFirstScoredTargetOnlyFillsTheState) {
  const TempFolder folder;
  TokenFileWriter writer(folder / "text", kVocab);
  writer.add_document(std::vector<int32_t>(30, 7));
  writer.publish();
  const auto model = make_recurrent_model(kVocab);
  NllSequence row{.file = std::make_shared<const TokenFile>(folder / "text"), .tokens = 30};
  row.unscored = 29 - 10;
  ModelScorer scorer(*model, torch::kCPU, 8);
  int64_t longest = 0;
  scorer.score(std::vector<NllSequence>{row}, [&](const ScoredPart& part) {
    longest = std::max(longest, std::ssize(part.columns.tokens));
  });
  std::vector<std::pair<int64_t, Want>> calls, expected = {{8, Want::kNothing},
                                                           {8, Want::kNothing},
                                                           {3, Want::kNothing},
                                                           {8, Want::kAll},
                                                           {2, Want::kAll}};
  for (const auto& call : model->calls) calls.emplace_back(call.n_tokens, call.want);
  EXPECT_EQ(calls, expected);  // 19 columns before the first scored one, then 10
  EXPECT_EQ(longest, 8);       // never the whole row
}

}  // namespace
}  // namespace tandem
