#pragma once
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "eval/needle_set.h"

// How answers to needle questions are scored. Nothing here knows a model.

namespace tandem {

/// As published: the share of `outputs` that stand anywhere in the answer, in any case of letters.
/// "12" is found in "312".
double substring_score(const std::string& answer, std::span<const std::string> outputs);

/// The answer's numbers are its longest runs of digits (its UUIDs, where an output is one). The
/// share of n outputs that are among the answer's first n numbers: with one, that it is the first.
double exact_score(const std::string& answer, std::span<const std::string> outputs);

/// Where a value stands among others, 1 = the highest. Equal ones share their places: among n equal
/// ones each has (n + 1) / 2.
struct NeedleRank {
  double rank = 1;
  /// Chance of being picked as the highest where equal ones are drawn for: 1 alone, 0 below
  /// another. So a model that prefers nothing gets 1 / n among n.
  double first = 1;
};
NeedleRank needle_rank(double value, std::span<const double> others);

/// What one sample was answered.
struct NeedleAnswer {
  std::string text;               // generated greedily
  std::vector<double> log_probs;  // of the first output as the answer, then of each decoy
  double first_token_rank = 1;    // of the first output's first token in the vocabulary
};

/// Of a cell: means over its samples.
struct NeedleScores {
  int64_t samples = 0, nulls = 0;  // nulls: answers of white space only
  double substring = 0, exact = 0;
  bool has_decoys = false;
  double decoy_accuracy = 0, decoy_rank = 0;  // NeedleRank of the answer among decoys
  double log_prob = 0;                        // of the first output, nats
  double first_token_rank = 0;
};
NeedleScores needle_scores(std::span<const NeedleSample> samples,
                           std::span<const NeedleAnswer> answers);
/// The fields of a record; null where there were no decoys.
nlohmann::ordered_json to_json(const NeedleScores& scores);

}  // namespace tandem
