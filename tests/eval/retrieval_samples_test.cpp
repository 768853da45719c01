#include "eval/retrieval_samples.h"

#include <gmock/gmock.h>

#include <map>

#include "core/error.h"
#include "eval/needle_words.h"

namespace tandem {
namespace {

using testing::HasSubstr;

std::string filler_text() {
  std::string text;
  for (int i = 0; text.size() < 70000; ++i) {
    std::string word;
    for (int n = i, k = 0; k < 4 + i % 5; ++k, n = n / 3 + 7)
      word += static_cast<char>('a' + (n * 5 + k) % 26);
    text += word + (i % 12 == 11 ? ".\n" : " ");
  }
  return text;
}

class RetrievalSamplesTest : public testing::Test {
 protected:
  // The byte tokenizer: five times as long as a learnt vocabulary, so lengths are too.
  RetrievalSamples supply(RetrievalConfig config) {
    return RetrievalSamples(config, *tokenizer_, filler_text());
  }
  // The text whose tokens weigh 1, a bar behind each piece.
  std::string answers(const RetrievalSamples::Sample& sample) {
    std::string text;
    bool inside = false;
    for (size_t t = 0; t < sample.ids.size(); ++t) {
      const bool is_answer = sample.weights[t] == 1;
      if (inside && !is_answer) text += '|';
      if (is_answer) text += tokenizer_->decode(std::vector<int32_t>{sample.ids[t]});
      inside = is_answer;
    }
    if (inside) text += '|';  // the sample ends there
    return text;
  }
  const std::unique_ptr<Tokenizer> tokenizer_ = load_tokenizer("bytes");
};

TEST_F(RetrievalSamplesTest, EverySampleIsFullAndBeginsWithBos) {
  const auto make = supply({.length = 1001, .pairs = 1, .dense = 1, .needle = 1});
  for (int64_t k = 0; k < 60; ++k) {
    const auto sample = make(k);
    ASSERT_EQ(sample.ids.size(), 1001u);
    ASSERT_EQ(sample.weights.size(), 1001u);
    EXPECT_EQ(sample.ids[0], *tokenizer_->bos());
    EXPECT_EQ(sample.weights[0], 0);
    EXPECT_EQ(std::count(sample.ids.begin(), sample.ids.end(), *tokenizer_->bos()), 1);
    const auto n_answers = std::count(sample.weights.begin(), sample.weights.end(), 1.0f);
    const auto others = std::count(sample.weights.begin(), sample.weights.end(), 0.05f);
    EXPECT_EQ(n_answers + others, 1000);
    EXPECT_EQ(sample.ids, make(k).ids);
  }
  EXPECT_NE(make(0).ids, make(1).ids);
}

TEST_F(RetrievalSamplesTest, OfPairsEveryRepetitionIsAnAnswer) {
  const auto make = supply({.length = 600, .pairs = 1, .needle = 0, .word_keys = 0});
  int checked = 0;
  for (int64_t k = 0; k < 20; ++k) {
    const auto sample = make(k);
    std::string text = tokenizer_->decode(sample.ids);
    // "[The special magic ]Lima[ number is] 417 . "
    for (const char* words : {"The special magic ", " number is"}) {
      for (size_t at; (at = text.find(words)) != std::string::npos;)
        text.erase(at, std::string(words).size());
    }
    std::map<std::string, std::string> numbers;
    std::string expected;
    std::stringstream stream(text);
    for (std::string key, number, dot; stream >> key >> number >> dot && dot == ".";) {
      const auto [entry, is_first] = numbers.try_emplace(key, number);
      EXPECT_EQ(entry->second, number);
      if (!is_first) expected += number + " .|";
    }
    EXPECT_TRUE(answers(sample).starts_with(expected)) << answers(sample) << "\n" << expected;
    checked += !expected.empty();
  }
  EXPECT_GT(checked, 10);
}

TEST_F(RetrievalSamplesTest, QuestionsAskForWhatTheTextSays) {
  const auto make = supply({.length = 3000, .dense = 1, .needle = 1});
  std::map<size_t, int> questions;
  for (int64_t k = 0; k < 40; ++k) {
    const auto sample = make(k);
    const std::string text = tokenizer_->decode(sample.ids);
    const size_t first = text.find("What is the special magic ");
    ASSERT_NE(first, std::string::npos);
    const std::string context = text.substr(0, first);
    std::string expected;
    size_t n = 0;
    for (size_t at = first; at != std::string::npos; at = text.find("What is the special magic ", at + 1)) {
      const size_t key_at = at + std::string("What is the special magic ").size();
      const size_t key_end = text.find(" number?", key_at);
      if (key_end == std::string::npos) break;  // the sample ends within the question
      const std::string key = text.substr(key_at, key_end - key_at);
      const size_t said = context.find(yoco_answer_prefix(key));
      ASSERT_NE(said, std::string::npos) << key;
      const size_t number_at = said + yoco_answer_prefix(key).size();
      const std::string number =
          context.substr(number_at, context.find(' ', number_at) - number_at);
      const size_t answer_at = at + yoco_question(key).size() + yoco_answer_prefix(key).size();
      if (answer_at >= text.size()) break;
      expected += (number + " .").substr(0, text.size() - answer_at) + "|";
      ++n;
    }
    EXPECT_EQ(answers(sample), expected);
    ++questions[n];
    if (context.starts_with(kYocoInstruction)) {
      EXPECT_GT(context.size(), 1500u);
      EXPECT_LE(n, 4u);
    }
  }
  EXPECT_GT(questions.size(), 3u);
}

TEST_F(RetrievalSamplesTest, RefusesWhatCannotBe) {
  const auto message = [&](RetrievalConfig config) -> std::string {
    try {
      supply(config);
    } catch (const UserError& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_EQ(message({.length = 119}),
            "length 119, expected at least 120 where needle has a share");
  EXPECT_EQ(message({.length = 55, .dense = 1, .needle = 0}),
            "length 55, expected at least 56 where dense has a share");
  EXPECT_EQ(message({.pairs = -1}), "share of pairs is negative, expected at least 0");
  EXPECT_EQ(message({.needle = 0}), "no kind of samples has a share above 0");
  EXPECT_THROW(RetrievalSamples({}, *tokenizer_, "too short"), UserError);
}

}  // namespace
}  // namespace tandem
