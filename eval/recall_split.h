#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <unordered_set>
#include <vector>

#include "data/token_file.h"
#include "eval/nll_scorer.h"

namespace tandem {

// Which targets a model can recall from its context, after Zoology (Arora et al., arXiv 2312.04927,
// sec. 3): a bigram is a token and the one after it; that of a target is the input just before it
// and the target.
//   ar_hit            the bigram stands earlier in the same sequence, so that who looks up what
//                     followed the token the last time finds the target
//   first_occurrence  it does not: the target is the first of its kind, or the sequence's first
//   frequent          it does, but occurs in the training text more often than a limit, Zoology's
//                     1,250 times: it may be known by heart. Empty without such a text
// A sequence is a window or document as it is scored, with what precedes its scored targets; where
// documents are masked, each begins a new one. The paper's "other" is the last two together.

/// Bigrams by token: those that stand more than `limit` times in a file's stream of tokens.
class FrequentBigrams {
 public:
  FrequentBigrams() = default;
  FrequentBigrams(const TokenFile& file, int64_t limit);
  bool contains(int64_t first, int64_t second) const;
  int64_t size() const { return static_cast<int64_t>(bigrams_.size()); }

 private:
  std::unordered_set<uint64_t> bigrams_;
};

enum class RecallClass { kArHit, kFirstOccurrence, kFrequent };

/// The bigrams of one sequence so far.
class RecallContext {
 public:
  void push(int64_t token);  ///< the next input
  /// Of the target behind the inputs so far.
  RecallClass class_of(int64_t target, const FrequentBigrams& frequent) const;

 private:
  std::optional<int64_t> before_;
  std::unordered_set<uint64_t> seen_;
};

/// NLL by class.
struct RecallSums {
  double nll[3] = {};
  int64_t count[3] = {};
  RecallSums& operator+=(const RecallSums& other);
  nlohmann::ordered_json json() const;  ///< {"ar_hit": {"nll", "tokens_scored"}, ...}
};

/// Splits rows that are scored together.
class RecallSplit {
 public:
  RecallSplit(size_t rows, const FrequentBigrams& frequent);
  void add(const ScoredPart& part);
  const RecallSums& sums() const { return sums_; }

 private:
  const FrequentBigrams& frequent_;
  std::vector<RecallContext> contexts_;
  std::vector<int32_t> segments_;  // of each row's last column
  RecallSums sums_;
};

}  // namespace tandem
