#pragma once
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "eval/task_requests.h"

namespace tandem {

/// What a model said to the requests of one document, in their order.
struct TaskAnswer {
  std::vector<double> log_probs = {};  // nats, of each request
  std::vector<bool> greedy = {};       // whether greedy decoding gives it; where that was asked for
  std::string generated = "";          // of generation
};

struct MetricValue {
  std::string name;
  double value = 0;
  std::optional<double> standard_error;  // absent: not known, or of one document
};

/// The metrics that tasks of a kind may have, sorted:
///   acc          the likeliest choice is right; of `likelihood` greedy decoding gives the target
///   acc_norm     the same by log-probability over the choice's length in characters
///   acc_bytes    ... in bytes of UTF-8
///   ppl          exp of minus the mean log-probability of the targets
///   word_ppl, byte_ppl, bpb    by words, bytes, and in bits for each byte, over all documents
///   exact_match  what was generated is a target; contains: has one in it
/// Standard errors are sample deviations over the root of the number of documents; ppl's follows
/// from that of the mean log-probability to first order. Those by words and bytes have none.
std::vector<std::string> metrics_of(const std::string& kind);

/// `items` and `answers` go together, at least one.
std::vector<MetricValue> task_metrics(const TaskDefinition& task, std::span<const TaskItem> items,
                                      std::span<const TaskAnswer> answers);

}  // namespace tandem
