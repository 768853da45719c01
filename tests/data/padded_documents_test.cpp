#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "data/sampler.h"
#include "tests/data/token_files.h"

namespace tandem {
namespace {

// Rows of a Block Transformer: every document padded to whole blocks.

class PaddedDocumentsTest : public testing::Test {
 protected:
  WindowView view(const std::string& shuffle, int64_t context_length, uint64_t seed = 3,
                  const Packing& packing = {}, const ViewSpec& spec = {}) {
    return {documents_of(folder_ / "x", spec), context_length, shuffle, RandomStream(seed),
            packing};
  }
  TempFolder folder_;
};

const std::vector<int64_t> kLengths = {5, 1, 13, 2, 8, 21, 3};  // 53 tokens

Packing blocks_of(int64_t length) {
  return {.multiple = length, .unscored_prefix = length - 1, .pad_documents = true};
}

/// The stream of an epoch.
struct Stream {
  std::vector<int64_t> tokens;  // 0 where there is padding
  std::vector<int32_t> segment;
  std::vector<int64_t> places_of(const std::vector<int64_t>& some) const {
    std::vector<int64_t> places;
    for (const int64_t token : some)
      places.push_back(std::find(tokens.begin(), tokens.end(), token) - tokens.begin());
    return places;
  }
};

/// `windows` are so long that one holds an epoch.
Stream whole_stream(const WindowView& windows, int64_t epoch) {
  EXPECT_EQ(windows.windows(), 1);
  const Row row = windows.window(epoch, true);
  return {row.tokens, row.segment};
}

TEST_F(PaddedDocumentsTest, PaddedDocumentsShareNoBlock) {
  const auto tokens = write_tokens(folder_ / "x", kLengths);
  for (const std::string shuffle : {"none", "windows", "documents"}) {
    for (const int64_t L : {1, 2, 3, 4, 8}) {
      const int64_t T = 30 * L;
      const auto windows = view(shuffle, T * 8, 3, blocks_of(L));
      for (const int64_t epoch : {0, 1}) {
        const Stream stream = whole_stream(windows, epoch);
        std::vector<int64_t> seen;
        for (size_t begin = 0; begin < stream.tokens.size(); begin += static_cast<size_t>(L)) {
          std::set<int32_t> documents;
          for (size_t t = begin; t < begin + static_cast<size_t>(L); ++t) {
            EXPECT_EQ(stream.tokens[t] == 0, stream.segment[t] < 0);
            if (stream.segment[t] < 0) continue;
            documents.insert(stream.segment[t]);
            seen.push_back(stream.tokens[t]);
          }
          EXPECT_LE(documents.size(), 1u);
          const bool in_stream = static_cast<int64_t>(begin) < windows.tokens();
          EXPECT_EQ(documents.size(), in_stream ? 1u : 0u);  // nor is any block all padding
        }
        if (shuffle != "documents") {
          EXPECT_EQ(seen, tokens);
        }
        std::sort(seen.begin(), seen.end());
        EXPECT_EQ(seen, tokens);
      }
    }
  }
}

TEST_F(PaddedDocumentsTest, PaddedDocumentsAreScoredButForFirstBlocks) {
  auto lengths = kLengths;
  lengths.insert(lengths.end(), {1, 1, 60, 2});  // one longer than most windows here
  const auto tokens = write_tokens(folder_ / "x", lengths);
  std::set<int64_t> first_tokens;
  for (size_t d = 0, at = 0; d < lengths.size(); at += static_cast<size_t>(lengths[d++]))
    first_tokens.insert(tokens[at]);
  for (const std::string shuffle : {"none", "windows", "documents"}) {
    for (const int64_t L : {1, 2, 3, 4, 8}) {
      const Packing packing = blocks_of(L);
      const auto whole = view(shuffle, 600 * L, 3, packing);
      for (const int64_t T : {L, 3 * L, 10 * L}) {
        const auto windows = view(shuffle, T, 3, packing);
        EXPECT_EQ(windows.tokens(), whole.tokens());
        for (const bool mask : {false, true}) {
          for (const int64_t epoch : {0, 2}) {
            const Stream stream = whole_stream(whole, epoch);
            const auto places = stream.places_of(tokens);
            std::multiset<int64_t> scored;
            for (int64_t k = 0; k < windows.windows(); ++k) {
              std::vector<Row> rows = {windows.window(epoch * windows.windows() + k, mask)};
              for (size_t t = 0; t < static_cast<size_t>(T); ++t) {
                // No column before padding has a target; one before a token does not skip any.
                const int64_t target = rows[0].targets[t];
                if (t + 1 < static_cast<size_t>(T) && target != kIgnored) {
                  EXPECT_EQ(target, rows[0].tokens[t + 1]);
                }
              }
              apply_packing(rows, packing);
              for (const int64_t target : rows[0].targets)
                if (target != kIgnored) scored.insert(target);
            }
            for (size_t i = 0; i < tokens.size(); ++i) {
              const int64_t at = places[i], document = stream.segment[static_cast<size_t>(at)];
              // A window's first block but for its first slot, which the window before scores.
              const bool opens_window = at == 0 || (at % T > 0 && at % T < L);
              const int64_t before = at / L * L - 1;  // the last column of the block before
              bool opens_document = first_tokens.count(tokens[i]) > 0;
              if (before >= 0 && at % L > 0) {
                int32_t block_before = -1;
                for (int64_t j = before; j > before - L; --j)
                  block_before = std::max(block_before, stream.segment[static_cast<size_t>(j)]);
                opens_document = opens_document || block_before != document;
              }
              const bool unscored = opens_window || (mask && opens_document);
              EXPECT_EQ(scored.count(tokens[i]), unscored ? 0u : 1u)
                  << shuffle << " L " << L << " T " << T << " mask " << mask << " at " << at;
            }
          }
        }
      }
    }
  }
}

TEST_F(PaddedDocumentsTest, AWindowsLastTargetIsTheNextWindowsFirstToken) {
  write_tokens(folder_ / "x", {40});
  const auto windows = view("none", 8, 3, blocks_of(4));
  for (int64_t k = 0; k + 1 < windows.windows(); ++k) {
    const Row row = windows.window(k, false), next = windows.window(k + 1, false);
    EXPECT_EQ(row.targets.back(), next.tokens.front());
  }
}

TEST_F(PaddedDocumentsTest, PaddingInFrontIsOfEachDocument) {
  write_tokens(folder_ / "x", std::vector<int64_t>(200, 3));
  const Packing packing = blocks_of(4);
  // Tokens of padding in front of each document, by the document's first token.
  const auto padding = [&](const std::string& shuffle, uint64_t seed, int64_t epoch) {
    const Stream stream = whole_stream(view(shuffle, 2000, seed, packing), epoch);
    std::map<int64_t, int64_t> in_front;
    for (size_t t = 0; t < stream.tokens.size(); ++t) {
      const int64_t token = stream.tokens[t];
      if (token != 0 && (token - 100) % 3 == 0) in_front[token] = static_cast<int64_t>(t % 4);
    }
    return in_front;
  };
  const auto once = padding("none", 3, 0);
  ASSERT_EQ(once.size(), 200u);
  std::map<int64_t, int64_t> counts;
  for (const auto& [token, n] : once) ++counts[n];
  for (int64_t n = 0; n < 4; ++n) EXPECT_NEAR(counts[n], 50, 25) << n;  // four deviations of 6.1
  EXPECT_EQ(padding("none", 3, 0), once);
  EXPECT_EQ(padding("none", 3, 1), once);
  EXPECT_EQ(padding("documents", 3, 0), once);  // of the document, wherever it comes to stand
  EXPECT_EQ(padding("documents", 3, 5), once);
  EXPECT_NE(padding("none", 4, 0), once);
}

TEST_F(PaddedDocumentsTest, PaddedRowsHaveTheWeightsOfTheirTargets) {
  const auto tokens = write_tokens(folder_ / "x", kLengths);
  write_weights(folder_ / "x", tokens);
  for (const std::string shuffle : {"none", "documents"}) {
    const WindowView windows(documents_of(folder_ / "x", {}, TargetWeights::kRead), 12, shuffle,
                             RandomStream(3), blocks_of(4));
    for (int64_t k = 0; k < windows.windows(); ++k) {
      std::vector<Row> rows = {windows.window(k, true)};
      apply_packing(rows, blocks_of(4));
      for (size_t t = 0; t < 12; ++t) {
        const int64_t target = rows[0].targets[t];
        EXPECT_EQ(rows[0].weights[t], target == kIgnored ? 0 : static_cast<float>(target) / 10);
      }
    }
  }
}

TEST_F(PaddedDocumentsTest, EmptyDocumentsTakeNoBlock) {
  write_empty_documents(folder_ / "x");
  for (const std::string shuffle : {"none", "documents"}) {
    const auto windows = view(shuffle, 24, 3, blocks_of(3));
    const Row row = windows.window(0, true);
    std::vector<int64_t> seen;
    std::set<int32_t> documents;
    for (size_t t = 0; t < 24; ++t) {
      if (row.segment[t] < 0) continue;
      seen.push_back(row.tokens[t]);
      documents.insert(row.segment[t]);
    }
    std::sort(seen.begin(), seen.end());
    EXPECT_EQ(seen, (std::vector<int64_t>{1, 2, 3, 4, 5}));
    EXPECT_EQ(documents, (std::set<int32_t>{0, 1}));
    EXPECT_LE(windows.tokens(), 12);  // two documents of up to two blocks
  }
}

TEST_F(PaddedDocumentsTest, CopiesHavePaddingsOfTheirOwn) {
  write_tokens(folder_ / "x", std::vector<int64_t>(200, 3));
  const Packing packing = blocks_of(4);
  // Tokens of padding in front of each document of an epoch in its order, by its first token.
  const auto paddings = [&](int64_t times) {
    const ViewSpec spec = {.upsample_from = 3, .upsample_times = times};
    const Stream stream = whole_stream(view("none", 2000 * times, 3, packing, spec), 0);
    std::map<int64_t, std::vector<int64_t>> in_front;
    for (size_t t = 0; t < stream.tokens.size(); ++t) {
      const int64_t token = stream.tokens[t];
      if (token != 0 && (token - 100) % 3 == 0)
        in_front[token].push_back(static_cast<int64_t>(t % 4));
    }
    return in_front;
  };
  const auto once = paddings(1), more = paddings(3);
  ASSERT_EQ(more.size(), 200u);
  int64_t same[2] = {};
  for (const auto& [token, in_front] : more) {
    ASSERT_EQ(in_front.size(), 3u);
    EXPECT_EQ(in_front[0], once.at(token)[0]);  // as if there were no copies
    same[0] += in_front[0] == in_front[1];
    same[1] += in_front[1] == in_front[2];
  }
  for (const int64_t n : same) EXPECT_NEAR(n, 50, 25);  // by chance: four deviations of 6.1
}

}  // namespace
}  // namespace tandem
