#include "eval/needle_set.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "data/tokenizer_trainer.h"
#include "eval/needle_sample.h"
#include "tests/eval/needle_fixture.h"

namespace tandem {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;

TEST_F(NeedleSetTest, EverySampleOfEveryTaskKeepsItsPromises) {
  for (const char* name : {"yoco", "ruler", "block-transformer", "lwm", "gkamradt", "phonebook"}) {
    for (const std::string& task : needle_protocol(name).tasks) {
      SCOPED_TRACE(std::string(name) + " " + task);
      const NeedleSetConfig wanted = config(name, task);
      const auto samples = make(wanted);
      ASSERT_EQ(samples.size(), 2u);
      for (const NeedleSample& sample : samples) check_sample(sample, wanted, *bytes_);
      EXPECT_NE(samples[0].input, samples[1].input);
      EXPECT_EQ(samples[1].index, 1);
    }
  }
}

TEST_F(NeedleSetTest, TheNeedleStandsWithinASentenceOfItsDepth) {
  for (const char* protocol : {"yoco", "gkamradt"}) {
    for (const double depth : {0.0, 0.1, 0.25, 0.5, 0.9, 1.0}) {
      NeedleSetConfig wanted = config(protocol, "single", 6000);
      wanted.depth = depth;
      for (const NeedleSample& sample : make(wanted)) {
        // Where it is in the prompt, seen from outside: the filler takes the prompt but for about
        // 350 bytes.
        const auto at = static_cast<double>(sample.input.find(sample.outputs[0]));
        EXPECT_NEAR(at / 6000, depth, 0.07);
        EXPECT_LE(sample.depth, depth);
        EXPECT_NEAR(sample.depth, depth, 100.0 / 5500);  // the longest sentence
      }
    }
  }
}

TEST_F(NeedleSetTest, WithoutItsNeedleTheRestStays) {
  for (const auto& [protocol, task] :
       std::map<std::string, std::string>{{"yoco", "multi"},
                                          {"lwm", "4_of_4"},
                                          {"ruler", "niah_multikey_2"},
                                          {"block-transformer", "verbatim"},
                                          {"phonebook", "single"}}) {
    SCOPED_TRACE(protocol);
    NeedleSetConfig wanted = config(protocol, task);
    const NeedleSample with = make(wanted)[0];
    wanted.remove_needle = true;
    const NeedleSample without = make(wanted)[0];
    EXPECT_EQ(without.outputs, with.outputs);
    EXPECT_EQ(without.decoys, with.decoys);
    EXPECT_EQ(without.answer_prefix, with.answer_prefix);
    EXPECT_TRUE(without.token_position_answer.empty());
    for (const std::string& output : without.outputs) EXPECT_EQ(count(without.input, output), 0);
    EXPECT_LT(without.length, with.length);
    EXPECT_GT(without.length, with.length - 90 * static_cast<int64_t>(with.outputs.size()));
    EXPECT_EQ(without.input.substr(0, 40), with.input.substr(0, 40));
    EXPECT_EQ(without.input.substr(without.input.size() - 40),
              with.input.substr(with.input.size() - 40));
  }
}

TEST_F(NeedleSetTest, SamplesDependOnTheSeedAndNotOnTheirNumber) {
  NeedleSetConfig wanted = config("ruler", "niah_multikey_1");
  const auto two = make(wanted);
  wanted.samples = 5;
  const auto five = make(wanted);
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(five[i].input, two[i].input);
    EXPECT_EQ(five[i].decoys, two[i].decoys);
  }
  wanted.seed = 8;
  EXPECT_NE(make(wanted)[0].outputs, two[0].outputs);
  EXPECT_NE(needle_set_hash(wanted, *bytes_),
            needle_set_hash(config("ruler", "niah_multikey_1"), *bytes_));
}

TEST_F(NeedleSetTest, PromptsOfTwoDepthsBeginWithTheSameText) {
  NeedleSetConfig wanted = config("yoco", "single");
  wanted.depth = 0.6;
  const std::string near = make(wanted)[0].input;
  wanted.depth = 0.8;
  const std::string far = make(wanted)[0].input;
  const auto differ = std::mismatch(near.begin(), near.end(), far.begin()).first - near.begin();
  EXPECT_GT(differ, 2000);
}

TEST_F(NeedleSetTest, AFillerFullOfNumbersNeverHoldsTheNeedlesOwn) {
  std::string numbers;
  for (int i = 1; i < 3000; ++i) numbers += "Page " + std::to_string(i) + " is here. ";
  write_file(folder_ / "pages.txt", numbers);
  NeedleSetConfig wanted = config("yoco", "multi", 60'000);
  wanted.haystack = folder_ / "pages.txt";
  wanted.needles = 8;
  wanted.samples = 10;  // of 80 numbers some are below 3,000 when first drawn
  for (const NeedleSample& sample : make(wanted)) check_sample(sample, wanted, *bytes_);
}

TEST_F(NeedleSetTest, AKeyThatTheFillerHoldsIsNotAskedFor) {
  std::string text;
  for (const char* city :
       {"Lima", "Rome", "Oslo", "Riga", "Lyon", "Baku", "Doha", "Kyoto", "Paris"})
    text += std::string("Do you know the special magic ") + city + " number? ";
  write_file(folder_ / "magic.txt", text);
  NeedleSetConfig wanted = config("yoco", "multi", 3000);
  wanted.haystack = folder_ / "magic.txt";
  wanted.needles = 8;
  wanted.samples = 5;
  for (const NeedleSample& sample : make(wanted)) {
    for (const char* city :
         {"Lima", "Rome", "Oslo", "Riga", "Lyon", "Baku", "Doha", "Kyoto", "Paris"})
      EXPECT_EQ(count(sample.input, std::string(" ") + city + " number is: "), 0);
  }
}

TEST_F(NeedleSetTest, ATrainedVocabularyFillsTheLengthToo) {
  std::string corpus;
  for (unsigned i = 0; i < 5; ++i) corpus += essay(i, 40);
  for (int i = 0; i < 200; ++i)
    corpus += "The special magic Lima number is " + std::to_string(i * 211) + " . \n";
  write_file(folder_ / "corpus.txt", corpus);
  train_tokenizer(folder_ / "corpus.txt", {}, {.vocab_size = 350, .model = "bpe", .threads = 1}, 0,
                  folder_ / "pieces.model");
  const auto pieces = load_tokenizer(folder_ / "pieces.model");
  for (const char* task : {"single", "multi_dot"}) {
    NeedleSetConfig wanted = config("yoco", task, 512);
    wanted.needles = std::string(task) == "single" ? 1 : 4;
    for (const NeedleSample& sample : needle_set(wanted, *pieces))
      check_sample(sample, wanted, *pieces);
  }
  const NeedleSetConfig wanted = config("block-transformer", "verbatim", 512);
  for (const NeedleSample& sample : needle_set(wanted, *pieces))
    check_sample(sample, wanted, *pieces);
}

TEST_F(NeedleSetTest, TwoHundredThousandTokensAreMadeInLinearTime) {
  for (const auto& [protocol, task] : std::map<std::string, std::string>{
           {"yoco", "single"}, {"ruler", "niah_multikey_2"}, {"phonebook", "single"}}) {
    NeedleSetConfig wanted = config(protocol, task, 200'000);
    wanted.samples = 1;
    wanted.haystack = protocol == "yoco" ? "noise" : essays_;
    check_sample(make(wanted)[0], wanted, *bytes_);
  }
}

class NeedleSetSlowTest : public NeedleSetTest {};

TEST_F(NeedleSetSlowTest, AMillionTokensOfATrainedVocabulary) {
  std::string corpus;
  for (unsigned i = 0; i < 50; ++i) corpus += essay(i, 200, "word" + std::string(i % 9, 'x'));
  for (int i = 0; i < 2000; ++i)
    corpus += "The special magic Lima number is " + std::to_string(i * 211) + " . \n";
  write_file(folder_ / "corpus.txt", corpus);
  train_tokenizer(folder_ / "corpus.txt", {}, {.vocab_size = 350, .model = "bpe", .threads = 1}, 0,
                  folder_ / "pieces.model");
  const auto pieces = load_tokenizer(folder_ / "pieces.model");
  NeedleSetConfig wanted = config("yoco", "multi_dot", 1'048'576);
  wanted.needles = 4;
  for (const char* haystack : {"corpus.txt", ""}) {
    wanted.haystack = *haystack ? folder_ / haystack : "noise";
    for (const NeedleSample& sample : needle_set(wanted, *pieces))
      check_sample(sample, wanted, *pieces);
  }
}

TEST_F(NeedleSetTest, PositionsAreThoseOfTokensAcrossWindows) {
  std::string text(20'000, 'a');
  const std::string needle = "The number is: 4321567";
  for (const size_t at : {size_t{0}, size_t{7160}, size_t{8190}, size_t{19'900}}) {
    std::string with = text;
    with.insert(at, needle);
    const std::vector<int32_t> narrow = bytes_->encode(with);
    const std::vector<int64_t> ids(narrow.begin(), narrow.end());
    const std::vector<std::string> texts = {needle, "4321567", "4321568"};
    EXPECT_THAT(find_in_tokens(ids, texts, *bytes_),
                ElementsAre(static_cast<int64_t>(at), static_cast<int64_t>(at) + 15, -1));
  }
}

TEST_F(NeedleSetTest, TheHashIsOfAllThatDecides) {
  const NeedleSetConfig base = config("yoco", "single");
  std::set<std::string> hashes = {needle_set_hash(base, *bytes_)};
  EXPECT_EQ(hashes.begin()->size(), 16u);
  const auto differs = [&](auto change) {
    NeedleSetConfig other = base;
    change(other);
    EXPECT_TRUE(hashes.insert(needle_set_hash(other, *bytes_)).second);
  };
  differs([](auto& c) { c.length = 4097; });
  differs([](auto& c) { c.depth = 0.51; });
  differs([](auto& c) { c.samples = 11; });
  differs([](auto& c) { c.seed = 1; });
  differs([](auto& c) { c.haystack = "noise"; });
  differs([](auto& c) { c.remove_needle = true; });
  differs([](auto& c) { c.task = "multi"; });
  write_file(essays_ + "/0.txt", essay(99, 40));
  differs([](auto&) {});  // the same files with another text
  NeedleSetConfig kept = base;
  kept.cache = folder_ / "elsewhere";
  EXPECT_FALSE(hashes.insert(needle_set_hash(kept, *bytes_)).second);
  EXPECT_EQ(needle_filler(base), essays_);
  EXPECT_EQ(needle_filler(config("ruler", "niah_single_1")), "noise");
  EXPECT_EQ(needle_filler(config("phonebook", "single")), "lines");
}

TEST_F(NeedleSetTest, WhatCannotBeMadeIsRefused) {
  const auto error = [&](const NeedleSetConfig& wanted) {
    return error_of([&] { make(wanted); }, kExitUsage);
  };
  EXPECT_EQ(error(config("yooco", "single")),
            "unknown needle protocol yooco, expected one of: yoco, ruler, block-transformer, lwm, "
            "gkamradt, phonebook");
  EXPECT_EQ(error(config("yoco", "niah_single_1")),
            "unknown task niah_single_1 of needle protocol yoco, expected one of: single, multi, "
            "multi_dot");
  EXPECT_THAT(error(config("yoco", "single", 256)),
              AllOf(StartsWith("sample 0 of yoco single: length 256 is too short: instruction, "
                               "needles and question take "),
                    HasSubstr(" tokens, the answer up to 20, a sentence of the text ")));
  NeedleSetConfig wanted = config("yoco", "multi");
  wanted.needles = 3;
  EXPECT_EQ(error(wanted), "needles = 3, expected 1, 2, 4 or 8");
  wanted = config("lwm", "single");
  wanted.needles = 4;
  EXPECT_THAT(error(wanted), StartsWith("needles = 4, expected 1: only yoco's multi"));
  wanted = config("yoco", "single");
  wanted.depth = std::nan("");
  EXPECT_EQ(error(wanted), "depth = nan, expected a number in [0, 1]");
  wanted = config("yoco", "single");
  wanted.samples = 0;
  EXPECT_EQ(error(wanted), "samples = 0, expected at least 1");
}

TEST_F(NeedleSetTest, TheLengthItAsksForIsEnough) {
  NeedleSetConfig wanted = config("ruler", "niah_single_1", 200);
  const std::string error = error_of([&] { make(wanted); }, kExitUsage);
  wanted.length = std::stoll(error.substr(error.rfind(' ') + 1));
  wanted.samples = 1;
  EXPECT_LE(make(wanted)[0].length + 128, wanted.length);
}
}  // namespace
}  // namespace tandem
