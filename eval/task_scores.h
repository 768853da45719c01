#pragma once
#include <functional>
#include <span>
#include <vector>

#include "eval/task_requests.h"
#include "nn/language_model.h"

namespace tandem {

struct RequestScore {
  double log_prob = 0;  // nats, of the continuation behind the context
  bool greedy = false;  // each of its ids is the likeliest; false where that was not asked
};

/// The most ids that a model with positions for so many can see at once in front of what it
/// predicts, padding not counted; 0 = any number.
int64_t longest_context(const Packing& packing);

/// Scores requests, `batch` of similar length at a time. Logits are worked out for continuations
/// alone: rows go through LanguageModel::loss with all else unscored. With `greedy`, and for models
/// of blocks whose first block, shorter contexts included, is given no probability, they go through
/// a state; padding in front then fills that block up, as in generation. `progress` hears of how
/// many are done.
std::vector<RequestScore> score_requests(LanguageModel& model,
                                         std::span<const TokenRequest> requests,
                                         torch::Device device, int64_t batch, bool greedy,
                                         const std::function<void(int64_t done)>& progress = {});

}  // namespace tandem
