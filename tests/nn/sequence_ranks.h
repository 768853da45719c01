#pragma once
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/random.h"
#include "nn/language_model.h"
#include "nn/recomputing_runner.h"
#include "tests/comm/thread_ranks.h"
#include "tests/nn/helpers.h"

// One model, trained on whole rows and on rows that ranks divide.

namespace tandem {

using MakeModel = std::function<std::shared_ptr<LanguageModel>()>;

struct Outcome {
  double sum = 0;                          // of the loss
  double weight = 0;
  Tensor nll;                              // [B, T]
  std::map<std::string, Tensor> gradients;  // summed over ranks
};

struct RunOptions {
  int64_t ranks = 1;
  bool recompute = false;
  std::vector<double>* bytes = nullptr;  // sent by each rank in its sequence group
};

/// Forward and backward over `rows`, float64 parameters drawn from a seed.
inline Outcome outcome_of(const MakeModel& make, const std::vector<Row>& rows, const RunOptions& options) {
  const int64_t n = options.ranks;
  std::vector<Outcome> by_rank(static_cast<size_t>(n));
  if (options.bytes) options.bytes->assign(static_cast<size_t>(n), 0);
  run_mesh({.sequence = n}, [&](Mesh& mesh, int64_t rank) {
    const auto model = make();
    materialise_random(*model, 5);
    RecomputingRunner recomputing;
    ForwardContext context;
    context.sequence = mesh.sequence.get();
    context.training = true;
    if (options.recompute) context.runner = &recomputing;
    const Batch batch = make_batch(rows, torch::kCPU, {mesh.sequence->rank(), mesh.sequence->size()});
    const Loss loss = model->loss(batch, context);
    loss.sum.backward();
    Outcome& own = by_rank[static_cast<size_t>(rank)];
    own.sum = loss.sum.item<double>();
    own.weight = batch.total_weight;
    own.nll = loss.nll;
    for (const auto& item : model->named_parameters()) {
      const Tensor& gradient = item.value().grad();
      own.gradients[item.key()] = gradient.defined() ? gradient : torch::zeros_like(item.value());
    }
    for (const auto& [key, bytes] : mesh.traffic->bytes()) {
      if (options.bytes && key.starts_with("sequence.")) (*options.bytes)[static_cast<size_t>(rank)] += bytes;
    }
  });
  Outcome all = by_rank[0];
  Tensors nll;
  for (const Outcome& own : by_rank) nll.push_back(own.nll);
  all.nll = torch::cat(nll, 1);
  for (size_t r = 1; r < by_rank.size(); ++r) {
    all.sum += by_rank[r].sum;
    all.weight += by_rank[r].weight;
    for (auto& [name, gradient] : all.gradients) gradient = gradient + by_rank[r].gradients.at(name);
  }
  return all;
}

inline void expect_same_outcome(const Outcome& actual, const Outcome& expected) {
  EXPECT_NEAR(actual.sum, expected.sum, 1e-10 * std::max(1.0, std::abs(expected.sum)));
  EXPECT_EQ(actual.weight, expected.weight);
  EXPECT_TRUE(torch::equal(actual.nll.isnan(), expected.nll.isnan()));
  expect_close(actual.nll.nan_to_num(), expected.nll.nan_to_num());
  for (const auto& [name, gradient] : expected.gradients) {
    SCOPED_TRACE(name);
    expect_close(actual.gradients.at(name), gradient, 1e-10 * std::max(1.0, gradient.abs().max().item<double>()));
  }
}

/// A row whose documents have these lengths; a negative one is padding.
inline Row row_of_documents(const std::vector<int64_t>& lengths, int64_t vocab_size, uint64_t seed) {
  auto generator = seeded(seed);
  Row row;
  int32_t document = 0;
  for (const int64_t length : lengths) {
    for (int64_t t = 0; t < std::abs(length); ++t) {
      const bool scored = length > 0 && t + 1 < length;
      row.tokens.push_back(length < 0 ? 0 : torch::randint(vocab_size, {1}, generator, torch::kInt64).item<int64_t>());
      row.targets.push_back(scored ? torch::randint(vocab_size, {1}, generator, torch::kInt64).item<int64_t>() : kIgnored);
      row.segment.push_back(length < 0 ? -1 : document);
    }
    if (length > 0) ++document;
  }
  return row;
}

/// Rows of 24 columns, which 2, 3 and 4 ranks divide at 6, 8, 12, 16 and 18: documents that end there, just before and just after, of one token, over several ranks, with padding in
/// front, between and behind. `scale` makes everything longer.
inline std::vector<Row> rows_of_documents(int64_t vocab_size, int64_t scale = 1) {
  const std::vector<std::vector<int64_t>> lengths = {
      {24},
      {6, 2, 4, 4, 2, 6},
      {5, 2, 4, 2, 4, 2, 5},
      {3, 18, 3},
      {1, 1, 10, 1, 11},
      {-2, 3, -2, 6, -1, 2, -8},
      {-13, 11},
      {7, 1, 1, 1, 1, 1, 1, 1, 1, 1, 8},
  };
  std::vector<Row> rows;
  uint64_t seed = 11;
  for (auto row : lengths) {
    for (int64_t& length : row) length *= scale;
    rows.push_back(row_of_documents(row, vocab_size, seed++));
  }
  return rows;
}

}  // namespace tandem
