#include "data/sampler.h"

#include <gtest/gtest.h>

#include <map>
#include <set>
#include <thread>

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
  WindowView view(const std::string& shuffle, int64_t context_length, uint64_t seed = 3,
                  const Packing& packing = {}) {
    return {std::make_shared<TokenFile>(folder_ / "x"), context_length, shuffle, RandomStream(seed),
            packing};
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

/// Documents of 2 and 3 tokens with an empty one before, between and after them.
void write_empty_documents(const std::string& prefix) {
  const auto raw = [](auto... values) {
    std::string out;
    ((out.append(reinterpret_cast<const char*>(&values), sizeof values)), ...);
    return out;
  };
  write_file(prefix + ".idx",
             std::string("MMIDIDX\0\0", 9) + raw(int64_t{1}, uint8_t{8}, int64_t{2}, int64_t{6}, 2,
                                                 3, int64_t{0}, int64_t{4}, int64_t{0}, int64_t{0},
                                                 int64_t{1}, int64_t{1}, int64_t{2}, int64_t{2}));
  write_file(prefix + ".bin", raw(uint16_t{1}, uint16_t{2}, uint16_t{3}, uint16_t{4}, uint16_t{5}));
}

TEST_F(SamplerTest, EmptyDocumentsOfOtherWritersAreStepped) {
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

// Rows of a Block Transformer: every document padded to whole blocks.

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

TEST_F(SamplerTest, PaddedDocumentsShareNoBlock) {
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

TEST_F(SamplerTest, PaddedDocumentsAreScoredButForFirstBlocks) {
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

TEST_F(SamplerTest, AWindowsLastTargetIsTheNextWindowsFirstToken) {
  write_tokens(folder_ / "x", {40});
  const auto windows = view("none", 8, 3, blocks_of(4));
  for (int64_t k = 0; k + 1 < windows.windows(); ++k) {
    const Row row = windows.window(k, false), next = windows.window(k + 1, false);
    EXPECT_EQ(row.targets.back(), next.tokens.front());
  }
}

TEST_F(SamplerTest, PaddingInFrontIsOfEachDocument) {
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

TEST_F(SamplerTest, PaddedRowsHaveTheWeightsOfTheirTargets) {
  const auto tokens = write_tokens(folder_ / "x", kLengths);
  write_weights(folder_ / "x", tokens);
  const auto file = std::make_shared<TokenFile>(folder_ / "x", TargetWeights::kRead);
  for (const std::string shuffle : {"none", "documents"}) {
    const WindowView windows(file, 12, shuffle, RandomStream(3), blocks_of(4));
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

TEST_F(SamplerTest, EmptyDocumentsTakeNoBlock) {
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

TEST_F(SamplerTest, BlocksWithoutPaddingAreThoseOfThePlainStream) {
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

TEST_F(SamplerTest, PaddedSourcesOfAMixture) {
  write_tokens(folder_ / "x", kLengths, 1000);
  write_tokens(folder_ / "y", {40, 3, 9}, 5000);
  const std::vector<SourceSpec> sources = {{folder_ / "x", 0.7}, {folder_ / "y", 0.3}};
  const Sampler sampler(sources, 8, "documents", false, 1, blocks_of(4)),
      again(sources, 8, "documents", false, 1, blocks_of(4)),
      plain(sources, 8, "documents", false, 1);
  EXPECT_GT(sampler.tokens_per_epoch(), plain.tokens_per_epoch());
  EXPECT_EQ(sampler.tokens_per_epoch() % 4, 0);
  EXPECT_EQ(sampler.data_hash(), plain.data_hash());
  std::vector<Row> rows(100);  // by three threads, each in another order
  std::vector<std::thread> threads;
  for (int64_t i = 0; i < 3; ++i) {
    threads.emplace_back([&, i] {
      for (int64_t sample = 99 - i; sample >= 0; sample -= 3) rows[sample] = sampler.row(sample);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (int64_t sample = 0; sample < 100; ++sample) {
    const Row row = again.row(sample);
    EXPECT_EQ(rows[sample].tokens, row.tokens);
    EXPECT_EQ(rows[sample].targets, row.targets);
    EXPECT_EQ(rows[sample].segment, row.segment);
  }
}

TEST_F(SamplerTest, WindowsAreWholeBlocks) {
  write_tokens(folder_ / "x", kLengths);
  try {
    view("none", 10, 3, {.multiple = 4});
    ADD_FAILURE() << "no error";
  } catch (const std::logic_error& error) {
    EXPECT_STREQ(error.what(), "WindowView: context_length = 10, expected a multiple of 4");
  }
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
