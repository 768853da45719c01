#pragma once
#include <algorithm>
#include <vector>

#include "nn/batch.h"
#include "nn/language_model.h"
#include "tests/nn/helpers.h"

// Tokens and rows for the models of tiny_models.h.

namespace tandem {

inline constexpr int64_t kTinyVocab = 53, kTinyLength = 37;  // a multiple of neither window nor chunk nor block

inline Tensor random_tokens(int64_t batch, int64_t length, uint64_t seed) {
  return torch::randint(kTinyVocab, {batch, length}, seeded(seed), torch::kInt64);
}

/// Rows of which few targets are scored: three, none and five.
inline std::vector<Row> sparse_rows(const LanguageModel& model, bool documents, bool weights) {
  const std::vector<std::vector<size_t>> scored = {{6, 9, 36}, {}, {3, 11, 14, 21, 33}};
  std::vector<Row> rows;
  for (size_t b = 0; b < scored.size(); ++b) {
    const Tensor ids = random_tokens(2, kTinyLength, 20 + b);
    const auto* values = ids.const_data_ptr<int64_t>();
    Row row;
    row.tokens.assign(values, values + kTinyLength);
    row.targets.assign(kTinyLength, kIgnored);
    for (const size_t t : scored[b]) row.targets[t] = values[kTinyLength + static_cast<int64_t>(t)];
    row.segment.assign(kTinyLength, 0);
    if (documents) {
      // Between blocks where the model has blocks.
      const auto multiple = static_cast<size_t>(model.packing().multiple);
      const auto border = [&](size_t t) { return multiple == 1 ? t : t / multiple * multiple; };
      for (size_t t = border(12 - b); t < kTinyLength; ++t) row.segment[t] = t < border(30 + b) ? 1 : 2;
    }
    if (documents && b == 1) std::fill(row.segment.begin() + 25, row.segment.end(), -1);
    if (weights) {
      for (size_t t = 0; t < kTinyLength; ++t) row.weights.push_back(static_cast<float>(t % 4) / 2);
    }
    rows.push_back(std::move(row));
  }
  apply_packing(rows, model.packing());
  return rows;
}

/// The same with all targets scored that the model gives a probability.
inline std::vector<Row> dense_rows(const LanguageModel& model, bool documents, bool weights) {
  std::vector<Row> rows = sparse_rows(model, documents, weights);
  for (size_t b = 0; b < rows.size(); ++b) {
    const Tensor ids = random_tokens(1, kTinyLength, 40 + b);
    const auto* values = ids.const_data_ptr<int64_t>();
    for (size_t t = 0; t < rows[b].targets.size(); ++t)
      if (rows[b].segment[t] >= 0) rows[b].targets[t] = values[t % kTinyLength];
  }
  apply_packing(rows, model.packing());
  return rows;
}

}  // namespace tandem
