#include <map>

#include "eval/recall_split.h"
#include "tests/eval/nll_fixture.h"

namespace tandem {
namespace {

std::shared_ptr<const TokenFile> file_of(const std::string& path,
                                         const std::vector<std::vector<int32_t>>& documents) {
  TokenFileWriter writer(path, kVocabulary);
  for (const auto& document : documents) writer.add_document(document);
  writer.publish();
  return std::make_shared<const TokenFile>(path);
}

TEST(RecallContextTest, AHitIsABigramThatStandsEarlier) {
  const FrequentBigrams none;
  RecallContext context;
  const auto class_of = [&](int64_t input, int64_t target) {
    context.push(input);
    return context.class_of(target, none);
  };
  EXPECT_EQ(class_of(1, 2), RecallClass::kFirstOccurrence);  // 1 2
  EXPECT_EQ(class_of(2, 1), RecallClass::kFirstOccurrence);  // 1 2 1
  EXPECT_EQ(class_of(1, 2), RecallClass::kArHit);            // 1 2 1 2
  EXPECT_EQ(class_of(2, 3), RecallClass::kFirstOccurrence);  // the same input, another target
  EXPECT_EQ(class_of(3, 3), RecallClass::kFirstOccurrence);
  EXPECT_EQ(class_of(3, 3), RecallClass::kArHit);
  EXPECT_EQ(class_of(3, 2), RecallClass::kFirstOccurrence);  // 2 3 is not 3 2
}

TEST(FrequentBigramsTest, MoreThanTheLimitCountsAcrossTheWholeFile) {
  const TempFolder folder;
  std::vector<int32_t> long_one;  // longer than what is read at once: 7 9 stands 40,000 times
  for (int i = 0; i < 40000; ++i) long_one.insert(long_one.end(), {7, 9});
  const auto file = file_of(folder / "train", {{1, 2, 1, 2, 1}, {5}, long_one});
  const FrequentBigrams twice(*file, 1);
  EXPECT_TRUE(twice.contains(1, 2) && twice.contains(2, 1) && twice.contains(7, 9));
  EXPECT_FALSE(twice.contains(1, 5));
  EXPECT_EQ(twice.size(), 4);  // 9 7 too
  EXPECT_EQ(FrequentBigrams(*file, 2).size(), 2);
  EXPECT_TRUE(FrequentBigrams(*file, 39998).contains(9, 7));  // 39,999 times
  EXPECT_FALSE(FrequentBigrams(*file, 39999).contains(9, 7));
  EXPECT_TRUE(FrequentBigrams(*file, 39999).contains(7, 9));
  EXPECT_EQ(FrequentBigrams(*file, 40000).size(), 0);
}

class NllRecallTest : public NllTest {
 protected:
  /// By class: {sum, count} of windows of `length` tokens, with a slow search for bigrams.
  std::map<std::string, std::pair<double, int>> by_hand_of(int64_t length) const {
    std::map<std::string, std::pair<double, int>> classes;
    const auto nll = unigram_nll(*file_, kVocabulary);
    for (int64_t begin = 0; begin + 1 < std::ssize(stream_); begin += length) {
      const int64_t end = std::min<int64_t>(begin + length + 1, std::ssize(stream_));
      for (int64_t i = begin + 1; i < end; ++i) {
        const auto at = [&](int64_t place) { return stream_[static_cast<size_t>(place)]; };
        bool before = false;
        for (int64_t j = begin + 1; j < i; ++j)
          before = before || (at(j - 1) == at(i - 1) && at(j) == at(i));
        auto& sum = classes[before ? "ar_hit" : "first_occurrence"];
        sum.first += nll[static_cast<size_t>(at(i))];
        ++sum.second;
      }
    }
    return classes;
  }
};

TEST_F(NllRecallTest, TheSplitOfWindowsIsThatOfASlowSearch) {
  const std::string text = folder_ / "text";
  std::vector<int32_t> ids;
  const RandomStream random(9);
  for (uint64_t i = 0; i < 300; ++i) ids.push_back(static_cast<int32_t>(random.below(i, 6)));
  file_ = file_of(text, {ids});
  stream_.assign(ids.begin(), ids.end());
  for (const int64_t chunk : {0, 7}) {
    const auto records = run({.data = {text},
                              .context_length = 41,
                              .chunk = chunk,
                              .recall_split = true,
                              .unigram = text});
    ASSERT_EQ(records.size(), 2u);
    const auto expected = by_hand_of(41);
    ASSERT_GT(expected.at("ar_hit").second, 50);
    const auto& found = records[0]["nll_by_recall"];
    int64_t tokens = 0;
    for (const auto& [name, sum] : expected) {
      EXPECT_EQ(found[name]["tokens_scored"], sum.second) << name;
      EXPECT_NEAR(found[name]["nll"].get<double>(), sum.first / sum.second, 1e-12) << name;
      EXPECT_EQ(records[1]["nll_by_recall"][name]["tokens_scored"], sum.second);
      tokens += sum.second;
    }
    EXPECT_EQ(records[0]["tokens_scored"], tokens);
    EXPECT_EQ(found["frequent"]["tokens_scored"], 0);
    EXPECT_TRUE(found["frequent"]["nll"].is_null());
    // the sums of the model's classes give its mean
    double sum = 0;
    for (const auto& of_class : records[1]["nll_by_recall"]) {
      const auto n = of_class["tokens_scored"].get<double>();
      if (n > 0) sum += of_class["nll"].get<double>() * n;
    }
    EXPECT_NEAR(sum / static_cast<double>(tokens), records[1]["nll"].get<double>(), 1e-10);
  }
}

TEST_F(NllRecallTest, FrequentBigramsAreKeptApart) {
  const std::string text = folder_ / "text", train = folder_ / "train";
  file_of(text, {{1, 2, 3, 1, 2, 4, 2, 3, 1}});  // hits: 1 2, 2 3 and 3 1
  file_of(train, {{2, 3, 2, 3, 2}, {1, 2}});
  NllConfig config = {.data = {text}, .context_length = 100, .recall_split = true};
  const auto counts = [&] {
    std::vector<int64_t> list;
    const auto record = run(config).front();
    for (const auto& of_class : record["nll_by_recall"]) list.push_back(of_class["tokens_scored"]);
    return list;
  };
  EXPECT_EQ(counts(), (std::vector<int64_t>{3, 5, 0}));
  config.frequent_bigrams_from = train;
  EXPECT_EQ(counts(), (std::vector<int64_t>{3, 5, 0}));  // 1,250 times and more: none
  config.frequent_bigrams = 1;
  EXPECT_EQ(counts(), (std::vector<int64_t>{2, 5, 1}));
  const auto record = run(config).front();
  EXPECT_EQ(record["frequent_bigrams"], 1);
  EXPECT_EQ(record["frequent_bigrams_found"], 2);
  EXPECT_EQ(record["frequent_bigrams_hash"], TokenFile(train).content_hash());
  EXPECT_EQ(error_of([&] { run({.frequent_bigrams_from = train}); }, kExitUsage),
            "--frequent-bigrams-from has no effect without --recall-split true");
}

TEST_F(NllRecallTest, WhatIsNotScoredStillIsContextAndDocumentsApartAreNot) {
  const std::string text = folder_ / "text";
  file_of(text, {{1, 2, 3}, {1, 2, 3}});
  const auto hits = [&](NllConfig config) {
    config.data = {text}, config.recall_split = true, config.context_length = 100;
    return run(config).front()["nll_by_recall"]["ar_hit"]["tokens_scored"].get<int64_t>();
  };
  EXPECT_EQ(hits({}), 2);
  EXPECT_EQ(hits({.last = 1}), 1);
  EXPECT_EQ(hits({.last = 1, .chunk = 2}), 1);
  EXPECT_EQ(hits({.mask_documents = true}), 0);
  EXPECT_EQ(hits({.unit = "documents"}), 0);
}

}  // namespace
}  // namespace tandem
