#include "data/sampler.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "tests/data/temp_folder.h"

namespace tandem {
namespace {

// Tokens of all test files are different, so that a token tells where it stood.
std::vector<int64_t> write_tokens(const std::string& prefix, const std::vector<int64_t>& lengths,
                                  int32_t first = 100) {
  TokenFileWriter writer(prefix, 1 << 20);
  std::vector<int64_t> all;
  for (const int64_t length : lengths) {
    std::vector<int32_t> document;
    for (int64_t i = 0; i < length; ++i) document.push_back(first++);
    all.insert(all.end(), document.begin(), document.end());
    writer.add_document(document);
  }
  writer.finish();
  return all;
}

class SamplerTest : public testing::Test {
 protected:
  WindowView view(const std::string& shuffle, int64_t context_length, uint64_t seed = 3) {
    return {std::make_shared<TokenFile>(folder_ / "x"), context_length, shuffle,
            RandomStream(seed)};
  }
  TempFolder folder_;
};

const std::vector<int64_t> kLengths = {5, 1, 13, 2, 8, 21, 3};  // 53 tokens

TEST_F(SamplerTest, FileOrderGivesConsecutiveWindows) {
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

TEST_F(SamplerTest, EachTokenIsScoredOncePerEpoch) {
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

TEST_F(SamplerTest, MaskedDocumentsAreNumberedAndTheirFirstTokensUnscored) {
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

TEST_F(SamplerTest, ShuffledDocumentsStayWhole) {
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

TEST_F(SamplerTest, EpochsAndSeedsDiffer) {
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

TEST_F(SamplerTest, EmptyDocumentsOfOtherWritersAreStepped) {
  // Two documents of 2 and 3 tokens with an empty one before, between and after them.
  const auto raw = [](auto... values) {
    std::string out;
    ((out.append(reinterpret_cast<const char*>(&values), sizeof values)), ...);
    return out;
  };
  write_file(folder_ / "x.idx",
             std::string("MMIDIDX\0\0", 9) + raw(int64_t{1}, uint8_t{8}, int64_t{2}, int64_t{6}, 2,
                                                 3, int64_t{0}, int64_t{4}, int64_t{0}, int64_t{0},
                                                 int64_t{1}, int64_t{1}, int64_t{2}, int64_t{2}));
  write_file(folder_ / "x.bin",
             raw(uint16_t{1}, uint16_t{2}, uint16_t{3}, uint16_t{4}, uint16_t{5}));
  for (const std::string shuffle : {"none", "documents"}) {
    const Row row = view(shuffle, 6).window(0, true);
    const bool swapped = row.tokens[0] == 3;
    EXPECT_EQ(row.tokens, swapped ? (std::vector<int64_t>{3, 4, 5, 1, 2, 0})
                                  : (std::vector<int64_t>{1, 2, 3, 4, 5, 0}));
    EXPECT_EQ(row.segment, swapped ? (std::vector<int32_t>{0, 0, 0, 1, 1, -1})
                                   : (std::vector<int32_t>{0, 0, 1, 1, 1, -1}));
  }
}

/// PREFIX.weights, in which every token weighs a tenth of itself: it tells whose weight it is.
void write_weights(const std::string& prefix, const std::vector<int64_t>& tokens) {
  std::string bytes;
  for (const int64_t token : tokens) {
    const float weight = static_cast<float>(token) / 10;
    bytes.append(reinterpret_cast<const char*>(&weight), sizeof weight);
  }
  write_file(prefix + ".weights", bytes);
}

TEST_F(SamplerTest, WeightsAreThoseOfTheTargets) {
  const auto tokens = write_tokens(folder_ / "x", kLengths);
  write_weights(folder_ / "x", tokens);
  const auto file = std::make_shared<TokenFile>(folder_ / "x", TargetWeights::kRead);
  for (const std::string shuffle : {"none", "windows", "documents"}) {
    const WindowView windows(file, 7, shuffle, RandomStream(3));
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

TEST_F(SamplerTest, ASourceWithWeightsAmongOthers) {
  write_weights(folder_ / "x", write_tokens(folder_ / "x", kLengths));
  write_tokens(folder_ / "y", {40, 3, 9}, 5000);
  const auto sampler = [&] {
    return Sampler({{folder_ / "x", 1, /*target_weights=*/true}, {folder_ / "y", 1}}, 7, "none",
                   false, 1);
  };
  const Sampler first = sampler();
  for (int64_t sample = 0; sample < 10; ++sample) {
    const Row row = first.row(sample);
    EXPECT_EQ(row.weights.empty(), row.tokens[0] >= 5000);
  }
  const std::string hash = first.data_hash();
  EXPECT_EQ(sampler().data_hash(), hash);
  std::string bytes = file_bytes(folder_ / "x.weights");
  bytes[13] ^= 1;
  write_file(folder_ / "x.weights", bytes);
  EXPECT_NE(sampler().data_hash(), hash);
}

TEST_F(SamplerTest, TooFewTokensAreNamed) {
  write_tokens(folder_ / "x", {1});
  EXPECT_EQ(error_of([&] { view("none", 7); }),
            folder_ / "x.idx" + ": holds 1 tokens, at least 2 are needed");
}

TEST_F(SamplerTest, RowsOfAMixtureComeFromTheirSourcesInOrder) {
  write_tokens(folder_ / "x", kLengths, 1000);
  write_tokens(folder_ / "y", {40, 3, 9}, 5000);
  const std::vector<SourceSpec> sources = {{folder_ / "x", 0.7}, {folder_ / "y", 0.3}};
  const Sampler sampler(sources, 7, "none", false, 1);
  const Mixture mixture({0.7, 0.3});
  EXPECT_EQ(sampler.tokens_per_epoch(), 53 + 52);
  EXPECT_EQ(sampler.windows(1), 8);
  for (int64_t sample = 0; sample < 200; ++sample) {
    const auto [source, index] = mixture.pick(sample);
    const Row row = sampler.row(sample);
    EXPECT_EQ(row.sample, sample);
    EXPECT_EQ(row.tokens[0], (source == 0 ? 1000 : 5000) + index % 8 * 7);
  }
}

TEST_F(SamplerTest, DataHashTellsContentsAndWeights) {
  write_tokens(folder_ / "x", kLengths);
  write_tokens(folder_ / "y", {9, 9});
  const auto hash = [&](double weight, const std::string& second) {
    return Sampler({{folder_ / "x", weight}, {folder_ / second, 1}}, 7, "none", false, 1)
        .data_hash();
  };
  const std::string first = hash(1, "y");
  EXPECT_EQ(first.size(), 16u);
  EXPECT_EQ(hash(1, "y"), first);
  EXPECT_NE(hash(2, "y"), first);
  EXPECT_NE(hash(1, "x"), first);
  write_tokens(folder_ / "y", {9, 9}, 101);
  EXPECT_NE(hash(1, "y"), first);
}

TEST(MixtureTest, CountsAreWithinOneAtEveryPrefix) {
  for (const std::vector<double>& weights : {std::vector<double>{1},
                                             {0.5, 0.5},
                                             {0.7, 0.2, 0.1},
                                             {80, 20, 5, 5, 1, 0.25},
                                             {1, 1, 1, 1, 1, 1, 1},
                                             {1e-9, 1, 2},
                                             {10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 1, 1, 1}}) {
    const Mixture mixture(weights);
    double total = 0;
    for (const double w : weights) total += w;
    std::vector<int64_t> seen(weights.size(), 0), of_period(weights.size(), 0);
    for (int64_t k = 0; k < 65536; ++k) ++of_period[mixture.pick(k).source];
    for (size_t i = 0; i < weights.size(); ++i) {
      EXPECT_GE(of_period[i], 1);
      EXPECT_NEAR(static_cast<double>(of_period[i]), weights[i] / total * 65536, 1.0);
    }
    for (int64_t k = 0; k < 2 * 65536 + 1000; ++k) {
      const auto [source, index] = mixture.pick(k);
      ASSERT_EQ(index, seen[source]) << k;  // each source gives its samples in order, without a gap
      ++seen[source];
      for (size_t i = 0; i < weights.size(); ++i) {
        const double share = static_cast<double>(of_period[i]) / 65536 * static_cast<double>(k + 1);
        ASSERT_LT(std::abs(static_cast<double>(seen[i]) - share), 1.0) << k << " " << i;
      }
    }
  }
}

TEST(MixtureTest, WeightsMustBePositive) {
  const auto message = [](std::vector<double> weights) {
    return error_of([&] { Mixture mixture(weights); }, kExitUsage);
  };
  EXPECT_EQ(message({1, 0}), "weight 0.000000 of source 1, expected a number > 0");
  EXPECT_EQ(message({-1}), "weight -1.000000 of source 0, expected a number > 0");
  EXPECT_EQ(message({}), "a mixture of 0 sources, expected 1 to 65536");
}

}  // namespace
}  // namespace tandem
