#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "data/tokenizer.h"
#include "eval/needle_draws.h"

// Training text from which a small model learns to retrieve: keys with numbers, then questions about them, in YOCO's needle wording (eval/needle_words.h). Three kinds of samples, from easy to hard;
// a curriculum mixes them at growing lengths.

namespace tandem {

struct RetrievalConfig {
  int64_t length = 256;       // tokens of each sample, BOS included
  /// Shares of the kinds; they need not add up to 1.
  double pairs = 0;           // "Lima 417 . Oslo 9 . Lima 417 . ...": every repetition of a key is an answer
  double dense = 0;           // needles with a few words between them, then a question about each
  double needle = 1;          // the evaluation's form: instruction, text with 1 to 8 needles, 1 to 4 questions
  double other_weight = 0.05; // weight in the loss of tokens that are no answers; answers weigh 1
  double word_keys = 0.3;     // share of keys that are words of the text rather than cities
  uint64_t seed = 0;
};

/// A counted supply of samples: sample k depends on the config, the tokenizer, the text and k alone.
class RetrievalSamples {
 public:
  struct Sample {
    std::vector<int32_t> ids;    // [length], begins with BOS
    std::vector<float> weights;  // [length], of each token as a target; 0 for BOS
  };
  /// `text` is what stands between needles. Throws bad_usage for a tokenizer without BOS, a text of less than 64 KiB, a share below 0 or no share above it, and lengths too short for a kind that
  /// has a share: 16 tokens for pairs, 56 for dense, 120 for needle.
  RetrievalSamples(const RetrievalConfig& config, const Tokenizer& tokenizer, std::string text);
  Sample operator()(int64_t k) const;

 private:
  struct Draft;  // text, and which bytes of it are answers
  std::string key(Draws& draws) const;
  std::vector<std::string> keys(Draws& draws, size_t n) const;
  std::string filler(Draws& draws, size_t bytes) const;
  Draft pairs(Draws& draws) const;
  Draft dense(Draws& draws) const;
  Draft needle(Draws& draws) const;
  int64_t tokens(const std::string& text) const;
  Sample encoded(const Draft& draft) const;
  RetrievalConfig config_;
  const Tokenizer& tokenizer_;
  std::string text_;
  std::vector<std::string> words_;  // of the text, each once: keys
  double bytes_per_token_ = 1;      // of the text
};

}  // namespace tandem
