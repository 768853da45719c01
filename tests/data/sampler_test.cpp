#include "data/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <set>
#include <thread>

#include "core/checksum.h"
#include "tests/data/token_files.h"

namespace tandem {
namespace {

class SamplerTest : public testing::Test {
 protected:
  TempFolder folder_;
};

const std::vector<int64_t> kLengths = {5, 1, 13, 2, 8, 21, 3};  // 53 tokens

TEST_F(SamplerTest, ASourceWithWeightsAmongOthers) {
  write_weights(folder_ / "x", write_tokens(folder_ / "x", kLengths));
  write_tokens(folder_ / "y", {40, 3, 9}, 5000);
  const auto sampler = [&] {
    return Sampler(
        {{{.path = folder_ / "x", .weights = TargetWeights::kRead}, 1}, {{folder_ / "y"}, 1}}, 7,
        "none", false, 1);
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

TEST_F(SamplerTest, RowsOfAMixtureComeFromTheirSourcesInOrder) {
  write_tokens(folder_ / "x", kLengths, 1000);
  write_tokens(folder_ / "y", {40, 3, 9}, 5000);
  const std::vector<SourceSpec> sources = {{{folder_ / "x"}, 0.7}, {{folder_ / "y"}, 0.3}};
  const Sampler sampler(sources, 7, "none", false, 1);
  const Mixture mixture({0.7, 0.3});
  EXPECT_EQ(sampler.tokens_per_epoch(), 53 + 52);
  EXPECT_EQ(sampler.view(1).windows(), 8);
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
    return Sampler({{{folder_ / "x"}, weight}, {{folder_ / second}, 1}}, 7, "none", false, 1)
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

constexpr Packing kBlocks = {.multiple = 4, .unscored_prefix = 3, .pad_documents = true};

TEST_F(SamplerTest, PaddedSourcesOfAMixture) {
  write_tokens(folder_ / "x", kLengths, 1000);
  write_tokens(folder_ / "y", {40, 3, 9}, 5000);
  const std::vector<SourceSpec> sources = {{{folder_ / "x"}, 0.7}, {{folder_ / "y"}, 0.3}};
  const Sampler sampler(sources, 8, "documents", false, 1, kBlocks),
      again(sources, 8, "documents", false, 1, kBlocks), plain(sources, 8, "documents", false, 1);
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

TEST_F(SamplerTest, FillsRowsOfAMixtureWithTheSame) {
  write_weights(folder_ / "x", write_tokens(folder_ / "x", kLengths));
  write_tokens(folder_ / "y", {40, 3, 9}, 5000);
  const Sampler weighted(
      {{{.path = folder_ / "x", .weights = TargetWeights::kRead}, 1}, {{folder_ / "y"}, 2}}, 7,
      "documents", true, 1);
  const Sampler plain({{{folder_ / "x"}, 1}, {{folder_ / "y"}, 2}}, 7, "documents", true, 1);
  EXPECT_TRUE(weighted.weighted());
  EXPECT_FALSE(plain.weighted());
  EXPECT_EQ(plain.context_length(), 7);
  const auto with = make_rows_memory(61, 7, true), without = make_rows_memory(61, 7, false);
  for (int64_t r = 60; r >= 0; --r) {
    weighted.fill(r + 5, with->view(), r);
    plain.fill(r + 5, without->view(), r);
  }
  for (int64_t r = 0; r < 61; ++r) {
    expect_same(row_at(with->view(), r), with_weights(weighted.row(r + 5)));
    expect_same(row_at(without->view(), r), plain.row(r + 5));
  }
}

TEST_F(SamplerTest, AMixtureOfViewsIsExactAtEveryPrefix) {
  const auto x = write_tokens(folder_ / "x", kLengths, 1000);
  write_tokens(folder_ / "y", {40, 3, 9}, 5000);
  for (const std::string shuffle : {"windows", "documents"}) {
    const Sampler sampler(
        {{{folder_ / "x"}, 0.3, {.min_length = 3, .upsample_from = 8, .upsample_times = 4}},
         {{folder_ / "y"}, 0.7, {.max_length = 39}}},
        4, shuffle, false, 1);
    const WindowView& view = sampler.view(0);
    ASSERT_EQ(view.tokens(), 50 + 3 * 42);
    ASSERT_EQ(view.windows() * 4 - view.tokens(), 0);  // every token is in a row
    EXPECT_EQ(sampler.tokens_per_epoch(), 176 + 12);
    std::map<int64_t, int64_t> seen;  // tokens of the first source
    int64_t rows = 0;
    for (int64_t sample = 0; rows < 3 * view.windows(); ++sample) {
      const Row row = sampler.row(sample);
      const bool first = row.tokens[0] < 5000;
      rows += first;
      EXPECT_LT(std::abs(static_cast<double>(rows) - 0.3 * static_cast<double>(sample + 1)), 1.01);
      for (size_t t = 0; first && t < 4; ++t) ++seen[row.tokens[t]];
    }
    size_t at = 0;
    for (const int64_t length : kLengths) {
      for (int64_t i = 0; i < length; ++i, ++at)
        EXPECT_EQ(seen[x[at]], 3 * (length < 3 ? 0 : length < 8 ? 1 : 4)) << x[at];
    }
  }
}

TEST_F(SamplerTest, DataHashTellsViewsThatAreNotTheWholeFile) {
  write_tokens(folder_ / "x", kLengths);
  const auto hash = [&](const ViewSpec& spec) {
    return Sampler({{{folder_ / "x"}, 1, spec}}, 7, "none", false, 1).data_hash();
  };
  const std::string whole = hash({});
  EXPECT_EQ(hash({.min_length = 1, .max_length = 21}), whole);
  const std::set<std::string> others = {whole,
                                        hash({.min_length = 2}),
                                        hash({.max_length = 20}),
                                        hash({.upsample_from = 8, .upsample_times = 2}),
                                        hash({.upsample_from = 9, .upsample_times = 2}),
                                        hash({.upsample_from = 8, .upsample_times = 3})};
  EXPECT_EQ(others.size(), 6u);
}

TEST_F(SamplerTest, RowsAreThoseOfEarlierVersions) {
  write_weights(folder_ / "x", write_tokens(folder_ / "x", kLengths));
  write_tokens(folder_ / "y", {40, 3, 9}, 5000);
  const auto rows_of = [&](const std::string& shuffle, bool mask, const Packing& packing) {
    const Sampler sampler(
        {{{.path = folder_ / "x", .weights = TargetWeights::kRead}, 0.7}, {{folder_ / "y"}, 0.3}},
        8, shuffle, mask, 11, packing);
    EXPECT_EQ(sampler.data_hash(), "4115cb3cb6f1a25d");
    uint32_t crc = 0;
    for (int64_t sample = 0; sample < 60; ++sample) {
      const Row row = sampler.row(sample);
      crc = crc32c(std::as_bytes(std::span(row.tokens)), crc);
      crc = crc32c(std::as_bytes(std::span(row.targets)), crc);
      crc = crc32c(std::as_bytes(std::span(row.segment)), crc);
      crc = crc32c(std::as_bytes(std::span(row.weights)), crc);
    }
    return crc;
  };
  // Numbers of the code before there were views, which made each row from vectors of its own.
  EXPECT_EQ(rows_of("windows", false, {}), 0xd3a11ff2u);
  EXPECT_EQ(rows_of("windows", true, {}), 0x9166a425u);
  EXPECT_EQ(rows_of("documents", false, {}), 0xea3b973eu);
  EXPECT_EQ(rows_of("documents", true, {}), 0x15270474u);
  EXPECT_EQ(rows_of("documents", true, kBlocks), 0x7b89bd6fu);
}

}  // namespace
}  // namespace tandem
