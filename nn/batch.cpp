#include "nn/batch.h"

#include <algorithm>
#include <functional>

namespace tandem {
namespace {

bool is_one_document(const Row& row) {
  return std::all_of(row.segment.begin(), row.segment.end(), [&](int32_t segment) {
    return segment == row.segment.front() && segment >= 0;
  });
}

// What the loss asks of a row.
struct Scoring {
  std::vector<int64_t> targets;  // kIgnored also where the weight is 0
  std::vector<float> weights;    // 0 where not scored
  size_t n_scored = 0;
};

Scoring scoring_of(const Row& row) {
  Scoring scoring{row.targets, row.weights, 0};
  if (row.weights.empty()) scoring.weights.assign(row.targets.size(), 1);
  for (size_t t = 0; t < row.targets.size(); ++t) {
    float& weight = scoring.weights[t];
    TORCH_CHECK(weight >= 0, "make_batch: a target weighs ", weight, ", expected at least 0");
    if (scoring.targets[t] == kIgnored) weight = 0;
    if (weight == 0) scoring.targets[t] = kIgnored;
    scoring.n_scored += weight > 0;
  }
  return scoring;
}

void check_tokens(const Row& row) {
  for (size_t t = 0; t < row.tokens.size(); ++t) {
    TORCH_CHECK(row.tokens[t] >= 0, "make_batch: token ", row.tokens[t], " at column ", t,
                ", expected an id >= 0; padding has token 0 and segment -1");
  }
}

// The scored columns and as many of the first others, which see the fewest keys, as make up `n`;
// ascending.
std::vector<int64_t> columns_of(const Scoring& scoring, size_t n) {
  size_t others = n - scoring.n_scored;
  std::vector<int64_t> columns;
  for (size_t t = 0; columns.size() < n; ++t) {
    const bool scored = scoring.weights[t] > 0;
    if (!scored && others == 0) continue;
    if (!scored) --others;
    columns.push_back(static_cast<int64_t>(t));
  }
  return columns;
}

// Vectors of one length, one of each element of `rows`, as a tensor [B, length].
template <typename T, typename Element, typename Get>
Tensor stack_rows(const std::vector<Element>& rows, const Get& get, torch::Device device) {
  std::vector<T> all;
  for (const Element& row : rows) {
    const std::vector<T>& values = get(row);
    all.insert(all.end(), values.begin(), values.end());
  }
  const auto n_rows = static_cast<int64_t>(rows.size());
  const auto stacked = torch::tensor(all, torch::CppTypeToScalarType<T>::value);
  return stacked.view({n_rows, -1}).to(device);
}

}  // namespace

Batch make_batch(const std::vector<Row>& rows, torch::Device device) {
  TORCH_CHECK(!rows.empty(), "make_batch: no rows");
  const size_t n_tokens = rows.front().tokens.size();
  std::vector<int64_t> samples;
  std::vector<Scoring> scorings;
  bool weighted = false;
  size_t most_scored = 1;  // a row of columns that are all unscored is simpler than none
  Batch batch;
  for (const Row& row : rows) {
    TORCH_CHECK(row.tokens.size() == n_tokens && row.targets.size() == n_tokens &&
                    row.segment.size() == n_tokens,
                "make_batch: a row has ", row.tokens.size(), " tokens, ", row.targets.size(),
                " targets and ", row.segment.size(), " segments, expected ", n_tokens, " each");
    TORCH_CHECK(row.weights.empty() || row.weights.size() == n_tokens, "make_batch: a row has ",
                row.weights.size(), " weights, expected ", n_tokens, " or none");
    check_tokens(row);
    samples.push_back(row.sample);
    weighted = weighted || !row.weights.empty();
    const Scoring& scoring = scorings.emplace_back(scoring_of(row));
    most_scored = std::max(most_scored, scoring.n_scored);
    for (const float weight : scoring.weights) batch.total_weight += static_cast<double>(weight);
  }
  batch.tokens = stack_rows<int64_t>(rows, std::mem_fn(&Row::tokens), device);
  batch.targets = stack_rows<int64_t>(scorings, std::mem_fn(&Scoring::targets), device);
  if (!std::all_of(rows.begin(), rows.end(), is_one_document)) {
    batch.segment = stack_rows<int32_t>(rows, std::mem_fn(&Row::segment), device);
  }
  batch.samples = torch::tensor(samples, torch::kInt64).to(device);
  if (weighted) batch.weights = stack_rows<float>(scorings, std::mem_fn(&Scoring::weights), device);
  if (4 * most_scored <= 3 * n_tokens) {
    const auto columns = [&](const Scoring& row) { return columns_of(row, most_scored); };
    batch.scored = stack_rows<int64_t>(scorings, columns, device);
  }
  return batch;
}

Tensor positions_of(const Batch& batch) {
  const auto columns =
      torch::arange(batch.tokens.size(1), batch.tokens.options()).expand_as(batch.tokens);
  if (!batch.segment.defined()) return columns;
  const int64_t n_tokens = batch.segment.size(1);
  auto first = torch::zeros_like(batch.tokens);  // the column where the token's document begins
  const auto begins =
      batch.segment.narrow(1, 1, n_tokens - 1) != batch.segment.narrow(1, 0, n_tokens - 1);
  first.narrow(1, 1, n_tokens - 1).copy_(columns.narrow(1, 1, n_tokens - 1) * begins);
  return columns - std::get<0>(first.cummax(/*dim=*/1));
}

}  // namespace tandem
