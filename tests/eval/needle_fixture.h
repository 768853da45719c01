#pragma once
#include <gmock/gmock.h>

#include <memory>
#include <random>
#include <regex>
#include <set>
#include <string>
#include <vector>

#include "eval/needle_set.h"
#include "tests/data/temp_folder.h"

namespace tandem {

inline int count(const std::string& text, const std::string& word) {
  int n = 0;
  for (size_t at = 0; (at = text.find(word, at)) != std::string::npos; ++at) ++n;
  return n;
}

/// All matches of the pattern's first group, or of the whole where it has none.
inline std::vector<std::string> matches(const std::string& text, const std::string& pattern) {
  const std::regex regex(pattern);
  std::vector<std::string> found;
  for (std::sregex_iterator it(text.begin(), text.end(), regex), end; it != end; ++it)
    found.push_back(it->str(it->size() > 1 ? 1 : 0));
  return found;
}

inline std::string essay(unsigned seed, int sentences, const std::string& last_word = "again") {
  std::mt19937 random(seed);
  const char* words[] = {"river", "stone", "evening", "small", "letter",
                         "of",    "and",   "the",     "work"};
  std::string text = "On Things";
  for (int i = 0; i < sentences; ++i) {
    text += i % 6 == 0 ? "\n\n" : " ";
    text += "It";
    for (unsigned n = 4 + random() % 8; n > 0; --n) text += std::string(" ") + words[random() % 9];
    text += " " + last_word + ".";
  }
  return text + "\n";
}

class NeedleSetTest : public testing::Test {
 protected:
  NeedleSetTest() {
    for (unsigned i = 0; i < 5; ++i)
      write_file(essays_ + "/" + std::to_string(i) + ".txt", essay(i, 40));
  }
  NeedleSetConfig config(std::string protocol, std::string task, int64_t length = 4096) const {
    return {.protocol = std::move(protocol),
            .task = std::move(task),
            .length = length,
            .samples = 2,
            .seed = 7,
            .haystack = essays_};
  }
  std::vector<NeedleSample> make(const NeedleSetConfig& wanted) const {
    return needle_set(wanted, *bytes_);
  }
  const TempFolder folder_;
  const std::string essays_ = folder_ / "essays";
  const std::unique_ptr<Tokenizer> bytes_ = load_tokenizer("bytes");
};

/// What every sample of every task promises.
inline void check_sample(const NeedleSample& sample, const NeedleSetConfig& config,
                         const Tokenizer& tokenizer) {
  const NeedleProtocol& protocol = needle_protocol(config.protocol);
  const std::vector<int64_t> ids = needle_prompt(sample, protocol, tokenizer);
  EXPECT_EQ(sample.length, static_cast<int64_t>(ids.size()));
  EXPECT_LE(sample.length + protocol.max_new_tokens, config.length);
  EXPECT_GT(sample.length + protocol.max_new_tokens, config.length * 9 / 10);
  ASSERT_EQ(sample.token_position_answer.size(), sample.outputs.size());
  for (size_t i = 0; i < sample.outputs.size(); ++i) {
    EXPECT_EQ(count(sample.input, sample.outputs[i]), 1) << sample.outputs[i];
    const auto at = static_cast<size_t>(sample.token_position_answer[i]);
    const std::vector<int32_t> tail(ids.begin() + static_cast<int64_t>(at), ids.end());
    const std::string text = tokenizer.decode(tail);
    EXPECT_LE(text.find(sample.outputs[i]), 1u) << text.substr(0, 40);  // a space may stand before
  }
  std::set<std::string> values(sample.decoys.begin(), sample.decoys.end());
  EXPECT_EQ(values.size(), sample.decoys.size());
  EXPECT_GE(values.size(), 9u);
  for (const std::string& output : sample.outputs) EXPECT_TRUE(values.insert(output).second);
}

}  // namespace tandem
