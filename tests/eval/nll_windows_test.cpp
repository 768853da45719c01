#include "eval/nll_windows.h"

#include "tests/eval/nll_fixture.h"

namespace tandem {
namespace {

using NllWindowsTest = NllTest;

TEST_F(NllWindowsTest, PartsOfARowAreThoseOfTheWholeRow) {
  for (const Packing& packing :
       {Packing{}, Packing{.multiple = 4, .unscored_prefix = 3},
        Packing{.multiple = 4, .unscored_prefix = 3, .pad_documents = true}}) {
    for (const std::optional<int64_t> bos :
         {std::optional<int64_t>(), std::optional<int64_t>(256)}) {
      for (const int64_t unscored : {0, 2, 9, 100}) {
        const NllSequence sequence{
            .file = file_, .begin = 3, .tokens = 11, .bos = bos, .unscored = unscored};
        std::vector<int64_t> ids(stream_.begin() + 3, stream_.begin() + 14);
        if (bos) ids.insert(ids.begin(), *bos);
        const Row expected = row_of_sequence(ids, packing, unscored);
        ASSERT_EQ(sequence.columns(packing), std::ssize(expected.tokens));
        const auto first = std::find_if(expected.targets.begin(), expected.targets.end(),
                                        [](int64_t target) { return target != kIgnored; });
        EXPECT_EQ(sequence.first_scored(packing), first - expected.targets.begin());
        for (const int64_t n : {1, 3, 5, 100}) {
          Row joined;
          for (int64_t begin = 0; begin < sequence.columns(packing); begin += n) {
            const Row part = sequence.part(begin, n, packing);
            ASSERT_EQ(std::ssize(part.tokens), n);
            joined.tokens.insert(joined.tokens.end(), part.tokens.begin(), part.tokens.end());
            joined.targets.insert(joined.targets.end(), part.targets.begin(), part.targets.end());
            joined.segment.insert(joined.segment.end(), part.segment.begin(), part.segment.end());
          }
          std::vector<Row> rows = {expected, joined};
          pad_rows(rows);
          EXPECT_EQ(rows[0].tokens, rows[1].tokens);
          EXPECT_EQ(rows[0].targets, rows[1].targets);
          EXPECT_EQ(rows[0].segment, rows[1].segment);
        }
      }
    }
  }
}

TEST_F(NllWindowsTest, BosInFrontOfWindowsScoresEveryToken) {
  for (const int64_t length : {1, 4, 9, 28, 40}) {
    for (int64_t stride = 1; stride <= length; stride += 2) {
      auto w = windows(length, stride);
      w.bos = 256;
      std::vector<int> scored(stream_.size());
      for (int64_t k = 0; k < w.count(); ++k) {
        const Row row = w.row(k, {});
        EXPECT_EQ(row.tokens[0], 256);
        EXPECT_LE(std::ssize(row.tokens), length);
        for (size_t t = 0; t < row.targets.size(); ++t) {
          if (row.targets[t] == kIgnored) continue;
          const auto at = static_cast<size_t>(k * stride) + t;
          EXPECT_EQ(row.targets[t], stream_[at]);
          EXPECT_TRUE(t == 0 || row.tokens[t] == stream_[at - 1]);
          ++scored[at];
        }
      }
      EXPECT_EQ(scored, std::vector<int>(stream_.size(), 1)) << length << ", " << stride;
    }
  }
}

TEST_F(NllWindowsTest, LastLeavesTheEndOfEachWindow) {
  auto w = windows(10, 6);
  w.last = 3;
  std::vector<size_t> scored;
  for (int64_t k = 0; k < w.count(); ++k) {
    const Row row = w.row(k, {});
    for (size_t t = 0; t < row.targets.size(); ++t) {
      if (row.targets[t] != kIgnored) scored.push_back(static_cast<size_t>(k * 6) + t + 1);
    }
  }
  // windows [0, 10), [6, 16), [12, 22), [18, 27): targets one on
  EXPECT_EQ(scored, (std::vector<size_t>{8, 9, 10, 14, 15, 16, 20, 21, 22, 25, 26, 27}));
}

TEST_F(NllWindowsTest, DocumentsStandAloneAndAreCounted) {
  NllDocuments documents{.file = file_, .length = 6};  // of 6, 2, 8 and 12 tokens
  documents.choose(0, 0, 0);
  EXPECT_EQ(documents.chosen, (std::vector<int64_t>{0, 1, 2, 3}));
  EXPECT_EQ(documents.cut.documents, 2);  // to 7 tokens, whose last is a target only
  EXPECT_EQ(documents.cut.tokens, 1 + 5);
  const NllUnits units = units_of(documents);
  EXPECT_EQ(units.count, 4);
  EXPECT_EQ(units.tokens, 6 + 2 + 7 + 7);
  EXPECT_EQ(units.positions, 6);
  EXPECT_EQ(units.sequence(2).row({}).tokens, (std::vector<int64_t>{111, 114, 108, 100, 33, 33}));
  EXPECT_EQ(units.sequence(1).row({}).targets, (std::vector<int64_t>{257}));

  documents.choose(3, 8, 1);
  EXPECT_EQ(documents.chosen, (std::vector<int64_t>{0}));
  EXPECT_EQ(units_of(documents).counts.dump(),
            R"({"documents_left_out":2,"tokens_left_out":14,"documents_without_target":0,)"
            R"("tokens_without_target":0,"documents_not_reached":1,"tokens_not_reached":8,)"
            R"("documents_cut":0,"tokens_cut":0})");
  EXPECT_THROW(documents.choose(13, 0, 0), UserError);

  documents.bos = 256;
  documents.choose(0, 0, 0);
  EXPECT_EQ(documents.cut.tokens, 2 + 6);
  EXPECT_EQ(documents.sequence(1).row({}).targets, (std::vector<int64_t>{87, 257}));
}

}  // namespace
}  // namespace tandem
