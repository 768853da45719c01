#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "data/sampler.h"
#include "tests/data/token_files.h"

namespace tandem {
namespace {

class WindowViewTest : public testing::Test {
 protected:
  WindowView view(const std::string& shuffle, int64_t context_length, uint64_t seed = 3,
                  const Packing& packing = {}, const ViewSpec& spec = {}) {
    return {documents_of(folder_ / "x", spec), context_length, shuffle, RandomStream(seed),
            packing};
  }
  TempFolder folder_;
};

const std::vector<int64_t> kLengths = {5, 1, 13, 2, 8, 21, 3};  // 53 tokens

TEST_F(WindowViewTest, FileOrderGivesConsecutiveWindows) {
  const auto tokens = write_tokens(folder_ / "x", kLengths);
  const auto windows = view("none", 7);
  ASSERT_EQ(windows.windows(), 8);  // ceil(52 / 7)
  for (int64_t k = 0; k < 20; ++k) {
    const Row row = windows.window(k, false);
    ASSERT_EQ(row.tokens.size(), 7u);
    for (int64_t t = 0; t < 7; ++t) {
      const size_t at = static_cast<size_t>(k % 8 * 7 + t);
      EXPECT_EQ(row.tokens[t], at < 53 ? tokens[at] : 0) << k << " " << t;
      EXPECT_EQ(row.targets[t], at + 1 < 53 ? tokens[at + 1] : kIgnored) << k << " " << t;
      EXPECT_EQ(row.segment[t], at < 53 ? 0 : -1) << k << " " << t;
    }
  }
}

TEST_F(WindowViewTest, EachTokenIsScoredOncePerEpoch) {
  for (const int64_t last :
       {3, 2, 4}) {  // the epoch's targets: more than, as many as and fewer than fill windows
    auto lengths = kLengths;
    lengths.back() = last;
    const auto tokens = write_tokens(folder_ / "x", lengths);
    for (const std::string shuffle : {"none", "windows", "documents"}) {
      for (const int64_t T : {1, 7, 17, 52, 100}) {
        const auto windows = view(shuffle, T);
        for (const int64_t epoch : {0, 1, 5}) {
          std::multiset<int64_t> scored;
          for (int64_t k = 0; k < windows.windows(); ++k) {
            for (const int64_t target :
                 windows.window(epoch * windows.windows() + k, false).targets) {
              if (target != kIgnored) scored.insert(target);
            }
          }
          // All but the first token of the epoch's stream, whichever document that begins.
          ASSERT_EQ(scored.size(), tokens.size() - 1);
          EXPECT_EQ(std::set<int64_t>(scored.begin(), scored.end()).size(), tokens.size() - 1);
          if (shuffle != "documents") {
            EXPECT_EQ(scored.count(tokens.front()), 0u);
          }
        }
      }
    }
  }
}

TEST_F(WindowViewTest, MaskedDocumentsAreNumberedAndTheirFirstTokensUnscored) {
  const auto tokens = write_tokens(folder_ / "x", kLengths);
  std::map<int64_t, int64_t> document_of;  // by token
  std::set<int64_t> first_tokens;
  size_t at = 0;
  for (size_t d = 0; d < kLengths.size(); ++d) {
    first_tokens.insert(tokens[at]);
    for (int64_t i = 0; i < kLengths[d]; ++i) document_of[tokens[at++]] = static_cast<int64_t>(d);
  }
  for (const std::string shuffle : {"none", "windows", "documents"}) {
    const auto windows = view(shuffle, 7);
    std::multiset<int64_t> scored;
    for (int64_t k = 0; k < windows.windows(); ++k) {
      const Row row = windows.window(k, true);
      for (size_t t = 0; t < 7 && row.segment[t] >= 0; ++t) {
        if (t == 0) {
          EXPECT_EQ(row.segment[t], 0);
        } else {
          const bool same = document_of[row.tokens[t]] == document_of[row.tokens[t - 1]];
          EXPECT_EQ(row.segment[t], row.segment[t - 1] + (same ? 0 : 1));
        }
        if (row.targets[t] == kIgnored) continue;
        EXPECT_EQ(row.targets[t],
                  row.tokens[t] + 1);  // tokens of a document follow each other here
        scored.insert(row.targets[t]);
      }
    }
    for (const int64_t token : tokens)
      EXPECT_EQ(scored.count(token), first_tokens.count(token) ? 0u : 1u);
  }
}

TEST_F(WindowViewTest, ShuffledDocumentsStayWhole) {
  write_tokens(folder_ / "x", kLengths);
  const auto windows = view("documents", 1000);  // one window holds the epoch
  std::set<std::vector<int64_t>> orders;
  for (int64_t epoch = 0; epoch < 4; ++epoch) {
    const Row row = windows.window(epoch, true);
    std::vector<int64_t> lengths;
    for (size_t t = 0; row.segment[t] >= 0; ++t) {
      lengths.resize(static_cast<size_t>(row.segment[t]) + 1);
      ++lengths.back();
    }
    orders.insert(lengths);
    std::sort(lengths.begin(), lengths.end());
    EXPECT_EQ(lengths, (std::vector<int64_t>{1, 2, 3, 5, 8, 13, 21}));
  }
  EXPECT_GT(orders.size(), 1u);
}

TEST_F(WindowViewTest, EpochsAndSeedsDiffer) {
  write_tokens(folder_ / "x", std::vector<int64_t>(40, 11));
  for (const std::string shuffle : {"windows", "documents"}) {
    const auto order = [&](uint64_t seed, int64_t epoch) {
      const auto windows = view(shuffle, 7, seed);
      std::vector<int64_t> first;
      for (int64_t k = 0; k < windows.windows(); ++k) {
        first.push_back(windows.window(epoch * windows.windows() + k, false).tokens[0]);
      }
      return first;
    };
    EXPECT_EQ(order(3, 0), order(3, 0));
    EXPECT_NE(order(3, 0), order(3, 1));
    EXPECT_NE(order(3, 0), order(4, 0));
  }
}

TEST_F(WindowViewTest, EpochsAreReadInTurnsAsOneAfterTheOther) {
  write_tokens(folder_ / "x", kLengths);
  for (const std::string shuffle : {"none", "windows", "documents"}) {
    const auto in_turns = view(shuffle, 7), in_order = view(shuffle, 7);
    for (int64_t k = 0; k < 4 * in_order.windows(); ++k) {
      in_turns.will_fill(k + k % 3 * in_turns.windows());
      expect_same(in_turns.window(k, true), in_order.window(k, true));
    }
  }
}

TEST_F(WindowViewTest, EmptyDocumentsOfOtherWritersAreStepped) {
  write_empty_documents(folder_ / "x");
  for (const std::string shuffle : {"none", "documents"}) {
    const Row row = view(shuffle, 6).window(0, true);
    const bool swapped = row.tokens[0] == 3;
    EXPECT_EQ(row.tokens, swapped ? (std::vector<int64_t>{3, 4, 5, 1, 2, 0})
                                  : (std::vector<int64_t>{1, 2, 3, 4, 5, 0}));
    EXPECT_EQ(row.segment, swapped ? (std::vector<int32_t>{0, 0, 0, 1, 1, -1})
                                   : (std::vector<int32_t>{0, 0, 1, 1, 1, -1}));
  }
}

TEST_F(WindowViewTest, WeightsAreThoseOfTheTargets) {
  const auto tokens = write_tokens(folder_ / "x", kLengths);
  write_weights(folder_ / "x", tokens);
  for (const std::string shuffle : {"none", "windows", "documents"}) {
    const WindowView windows(documents_of(folder_ / "x", {}, TargetWeights::kRead), 7, shuffle,
                             RandomStream(3));
    for (const bool mask : {false, true}) {
      for (int64_t k = 0; k < 2 * windows.windows(); ++k) {
        const Row row = windows.window(k, mask);
        ASSERT_EQ(row.weights.size(), 7u);
        for (size_t t = 0; t < 7; ++t) {
          const bool scored = row.targets[t] != kIgnored;
          EXPECT_EQ(row.weights[t], scored ? static_cast<float>(row.targets[t]) / 10 : 0);
        }
      }
    }
  }
  EXPECT_TRUE(view("none", 7).window(0, false).weights.empty());
}

TEST_F(WindowViewTest, WindowsAreWholeBlocks) {
  write_tokens(folder_ / "x", kLengths);
  try {
    view("none", 10, 3, {.multiple = 4});
    ADD_FAILURE() << "no error";
  } catch (const std::logic_error& error) {
    EXPECT_STREQ(error.what(), "WindowView: context_length = 10, expected a multiple of 4");
  }
}

TEST_F(WindowViewTest, BlocksWithoutPaddingAreThoseOfThePlainStream) {
  write_tokens(folder_ / "x", kLengths);
  const Packing packing = {.multiple = 4, .unscored_prefix = 3};
  for (const std::string shuffle : {"none", "windows", "documents"}) {
    const auto windows = view(shuffle, 8, 3, packing), plain = view(shuffle, 8, 3);
    ASSERT_EQ(windows.windows(), plain.windows());
    for (int64_t k = 0; k < 2 * windows.windows(); ++k) {
      EXPECT_EQ(windows.window(k, false).tokens, plain.window(k, false).tokens);
      EXPECT_EQ(windows.window(k, false).targets, plain.window(k, false).targets);
    }
  }
}

/// The documents of kLengths of which an epoch of `spec` is made, one behind the other.
std::vector<std::vector<int64_t>> epoch_of(const ViewSpec& spec) {
  std::vector<std::vector<int64_t>> once, more;
  int64_t token = 100;
  for (const int64_t length : kLengths) {
    std::vector<int64_t> document;
    for (int64_t i = 0; i < length; ++i) document.push_back(token++);
    if (length < spec.min_length || (spec.max_length > 0 && length > spec.max_length)) continue;
    once.push_back(document);
    if (length >= spec.upsample_from) more.push_back(document);
  }
  for (int64_t time = 1; time < spec.upsample_times; ++time)
    once.insert(once.end(), more.begin(), more.end());
  return once;
}

const ViewSpec kSpecs[] = {
    {.min_length = 3},
    {.max_length = 8},
    {.upsample_from = 8, .upsample_times = 3},
    {.min_length = 2, .max_length = 20, .upsample_from = 5, .upsample_times = 4}};

TEST_F(WindowViewTest, RowsOfAViewAreThoseOfItsDocuments) {
  write_tokens(folder_ / "x", kLengths);
  for (const ViewSpec& spec : kSpecs) {
    std::vector<int64_t> tokens;
    std::vector<int32_t> document;
    for (const auto& each : epoch_of(spec)) {
      tokens.insert(tokens.end(), each.begin(), each.end());
      document.resize(tokens.size(), document.empty() ? 0 : document.back() + 1);
    }
    const auto n = static_cast<int64_t>(tokens.size());
    const auto windows = view("none", 7, 3, {}, spec);
    EXPECT_EQ(windows.tokens(), n);
    ASSERT_EQ(windows.windows(), (n - 2) / 7 + 1);
    for (const bool mask : {false, true}) {
      for (int64_t k = 0; k < 2 * windows.windows(); ++k) {
        const Row row = windows.window(k, mask);
        const int64_t begin = k % windows.windows() * 7;
        for (int64_t t = 0; t < 7; ++t) {
          const int64_t at = begin + t;
          const bool real = at < n,
                     scored = at + 1 < n && (!mask || document[at] == document[at + 1]);
          EXPECT_EQ(row.tokens[t], real ? tokens[at] : 0) << k << " " << t;
          EXPECT_EQ(row.targets[t], scored ? tokens[at + 1] : kIgnored) << k << " " << t;
          EXPECT_EQ(row.segment[t], !real ? -1 : mask ? document[at] - document[begin] : 0);
        }
      }
    }
  }
}

TEST_F(WindowViewTest, ViewsGiveEachDocumentExactlySoOftenInEveryEpoch) {
  write_tokens(folder_ / "x", kLengths);
  for (const ViewSpec& spec : kSpecs) {
    std::map<int64_t, int64_t> expected;  // by token
    for (const auto& document : epoch_of(spec))
      for (const int64_t token : document) ++expected[token];
    for (const std::string shuffle : {"none", "windows", "documents"}) {
      const auto windows = view(shuffle, 5, 3, {}, spec);
      ASSERT_NE(windows.tokens() % 5, 1);  // so that the last token too is in a row
      for (int64_t epoch = 0; epoch < 3; ++epoch) {
        std::map<int64_t, int64_t> seen;
        int64_t scored = 0;
        for (int64_t k = 0; k < windows.windows(); ++k) {
          const Row row = windows.window(epoch * windows.windows() + k, false);
          for (size_t t = 0; t < 5; ++t) {
            if (row.segment[t] >= 0) ++seen[row.tokens[t]];
            scored += row.targets[t] != kIgnored;
          }
        }
        EXPECT_EQ(seen, expected) << shuffle << " " << epoch;
        EXPECT_EQ(scored, windows.tokens() - 1);
      }
    }
  }
}

TEST_F(WindowViewTest, FillsOneRowOfMemoryWithTheSame) {
  write_weights(folder_ / "x", write_tokens(folder_ / "x", kLengths));
  for (const TargetWeights weights : {TargetWeights::kNone, TargetWeights::kRead}) {
    for (const std::string shuffle : {"none", "windows", "documents"}) {
      for (const Packing& packing : {Packing{}, {.multiple = 3, .pad_documents = true}}) {
        const WindowView windows(documents_of(folder_ / "x", kSpecs[2], weights), 9, shuffle,
                                 RandomStream(3), packing);
        for (const bool weighted : {false, true}) {
          if (!weighted && weights == TargetWeights::kRead) continue;
          for (int64_t k = 0; k < 2 * windows.windows(); ++k) {
            const Row dirt = {{1, 2, 3, 4, 5, 6, 7, 8, 9},
                              {1, 2, 3, 4, 5, 6, 7, 8, 9},
                              {1, 2, 3, 4, 5, 6, 7, 8, 9},
                              77,
                              std::vector<float>(weighted ? 9 : 0, 0.25f)};
            const auto memory = pack_rows(std::vector<Row>{dirt, dirt, dirt});
            const bool mask = k % 2 == 1;
            windows.will_fill(k);
            windows.fill(k, mask, memory->view(), 1);
            const Row expected = windows.window(k, mask);
            expect_same(row_at(memory->view(), 1), weighted ? with_weights(expected) : expected);
            expect_same(row_at(memory->view(), 0), dirt);
            expect_same(row_at(memory->view(), 2), dirt);
          }
        }
      }
    }
  }
}

TEST_F(WindowViewTest, RefusesMemoryThatDoesNotFit) {
  write_weights(folder_ / "x", write_tokens(folder_ / "x", kLengths));
  const WindowView plain = view("none", 7);
  const WindowView weighted(documents_of(folder_ / "x", {}, TargetWeights::kRead), 7, "none",
                            RandomStream(3));
  const auto message = [](const WindowView& windows, int64_t k, int64_t length, int64_t r) {
    try {
      windows.fill(k, false, make_rows_memory(2, length, false)->view(), r);
    } catch (const std::logic_error& error) {
      return std::string(error.what());
    }
    return std::string("nothing was thrown");
  };
  EXPECT_EQ(message(plain, 3, 7, 1), "nothing was thrown");
  EXPECT_EQ(message(plain, -1, 7, 1),
            "WindowView::fill: window -1 into row 1 of 2 x 7 without weights, expected rows of 7");
  EXPECT_EQ(message(plain, 3, 6, 1),
            "WindowView::fill: window 3 into row 1 of 2 x 6 without weights, expected rows of 7");
  EXPECT_EQ(message(plain, 3, 7, 2),
            "WindowView::fill: window 3 into row 2 of 2 x 7 without weights, expected rows of 7");
  EXPECT_EQ(message(weighted, 3, 7, 1),
            "WindowView::fill: window 3 into row 1 of 2 x 7 without weights, expected rows of 7 "
            "with weights");
}

}  // namespace
}  // namespace tandem
