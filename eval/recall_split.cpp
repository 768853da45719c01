#include "eval/recall_split.h"

#include <algorithm>
#include <unordered_map>

namespace tandem {
namespace {

// Ids are below 2^32: the largest type of a token file holds no more.
uint64_t bigram(int64_t first, int64_t second) {
  return static_cast<uint64_t>(first) << 32 | static_cast<uint64_t>(second);
}

constexpr const char* kNames[] = {"ar_hit", "first_occurrence", "frequent"};

}  // namespace

FrequentBigrams::FrequentBigrams(const TokenFile& file, int64_t limit) {
  constexpr int64_t kPiece = 1 << 16;
  std::unordered_map<uint64_t, int64_t> counts;
  std::vector<int64_t> ids;
  for (int64_t begin = 0; begin + 1 < file.tokens(); begin += kPiece) {
    // one more than a piece, so that the bigram across its border is counted
    ids.resize(static_cast<size_t>(std::min(kPiece + 1, file.tokens() - begin)));
    file.read(begin, ids);
    for (size_t i = 0; i + 1 < ids.size(); ++i) ++counts[bigram(ids[i], ids[i + 1])];
  }
  for (const auto& [pair, count] : counts) {
    if (count > limit) bigrams_.insert(pair);
  }
}

bool FrequentBigrams::contains(int64_t first, int64_t second) const {
  return bigrams_.contains(bigram(first, second));
}

void RecallContext::push(int64_t token) {
  if (before_) seen_.insert(bigram(*before_, token));
  before_ = token;
}

RecallClass RecallContext::class_of(int64_t target, const FrequentBigrams& frequent) const {
  if (!before_ || !seen_.contains(bigram(*before_, target))) return RecallClass::kFirstOccurrence;
  return frequent.contains(*before_, target) ? RecallClass::kFrequent : RecallClass::kArHit;
}

RecallSums& RecallSums::operator+=(const RecallSums& other) {
  for (size_t i = 0; i < std::size(kNames); ++i) nll[i] += other.nll[i], count[i] += other.count[i];
  return *this;
}

nlohmann::ordered_json RecallSums::json() const {
  nlohmann::ordered_json classes;
  for (size_t i = 0; i < std::size(kNames); ++i) {
    nlohmann::ordered_json mean;
    if (count[i] > 0) mean = nll[i] / static_cast<double>(count[i]);
    classes[kNames[i]] = {{"nll", mean}, {"tokens_scored", count[i]}};
  }
  return classes;
}

RecallSplit::RecallSplit(size_t rows, const FrequentBigrams& frequent)
    : frequent_(frequent), contexts_(rows), segments_(rows, -1) {}

void RecallSplit::add(const ScoredPart& part) {
  const Row& row = part.columns;
  RecallContext& context = contexts_[part.row];
  for (size_t t = 0; t < row.tokens.size(); ++t) {
    if (row.segment[t] < 0) continue;  // padding
    if (row.segment[t] != segments_[part.row]) context = {};
    segments_[part.row] = row.segment[t];
    context.push(row.tokens[t]);
    if (row.targets[t] == kIgnored) continue;
    const auto i = static_cast<size_t>(context.class_of(row.targets[t], frequent_));
    sums_.nll[i] += part.nll[t];
    ++sums_.count[i];
  }
}

}  // namespace tandem
