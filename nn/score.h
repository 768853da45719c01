#pragma once
#include <optional>
#include <span>
#include <vector>

#include "nn/language_model.h"

namespace tandem {

/// NLL in nats, summed over scored targets, each as often as it weighs: Row::weights, 1 without.
struct ScoreResult {
  double nll_sum = 0, weight = 0;  // mean NLL = nll_sum / weight
  std::vector<double> nll_by_position,
      count_by_position;  // by column of the row: sums, and weights of the scored targets
  ScoreResult& operator+=(const ScoreResult& other);
};

/// `result` with its columns summed by the position in a block of `block_length` tokens that they
/// score: columns t go to position (t + 1) % block_length.
ScoreResult by_block_position(const ScoreResult& result, int64_t block_length);

/// Mean NLL of each column; NaN where nothing was scored.
std::vector<double> means(const ScoreResult& result);

/// Scores rows of any lengths, `batch` at a time, without gradient. Rows go whole through
/// LanguageModel::loss; with `chunk` > 0 through extend_nll in pieces of `chunk` tokens, which
/// gives the same numbers in memory that grows with the state only; then every row must be one
/// document, padded in front and behind only, and keys and values are held in `cache_dtype`
/// (absent: the model's). `context` says how layers run and which ranks divide the rows.
ScoreResult score_rows(LanguageModel& model, std::span<const Row> rows, torch::Device device,
                       int64_t batch, int64_t chunk = 0,
                       std::optional<torch::Dtype> cache_dtype = {},
                       const ForwardContext& context = {});

/// The most tokens that a row of scoring may hold, padding not counted, of a model with
/// packing.max_length > 0 positions.
int64_t longest_to_score(const Packing& packing);

/// log p of each token of each sequence given the tokens before it; NaN where the model gives none
/// (the first token and, unless it pads documents, the model's unscored prefix). Sequences hold at
/// least one id each; they are laid out by model.packing().
std::vector<std::vector<double>> log_probs(LanguageModel& model,
                                           std::span<const std::vector<int64_t>> sequences,
                                           torch::Device device, int64_t batch);

}  // namespace tandem
