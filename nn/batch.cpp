#include "nn/batch.h"

#include <algorithm>

namespace tandem {
namespace {

bool is_one_document(const Row& row) {
  return std::all_of(row.segment.begin(), row.segment.end(), [&](int32_t segment) {
    return segment == row.segment.front() && segment >= 0;
  });
}

// One member of every row as a tensor [B, T].
template <typename T>
Tensor stack_rows(const std::vector<Row>& rows, const std::vector<T> Row::*member,
                  torch::Device device) {
  const auto n_tokens = static_cast<int64_t>(rows.front().tokens.size());
  auto out = torch::empty({static_cast<int64_t>(rows.size()), n_tokens},
                          torch::CppTypeToScalarType<T>::value);
  T* next = out.template data_ptr<T>();
  for (const Row& row : rows) next = std::copy((row.*member).begin(), (row.*member).end(), next);
  return out.to(device);
}

}  // namespace

Batch make_batch(const std::vector<Row>& rows, torch::Device device) {
  TORCH_CHECK(!rows.empty(), "make_batch: no rows");
  const size_t n_tokens = rows.front().tokens.size();
  std::vector<int64_t> samples;
  Batch batch;
  for (const Row& row : rows) {
    TORCH_CHECK(row.tokens.size() == n_tokens && row.targets.size() == n_tokens &&
                    row.segment.size() == n_tokens,
                "make_batch: a row has ", row.tokens.size(), " tokens, ", row.targets.size(),
                " targets and ", row.segment.size(), " segments, expected ", n_tokens, " each");
    samples.push_back(row.sample);
    batch.total_weight += static_cast<double>(std::count_if(
        row.targets.begin(), row.targets.end(), [](int64_t t) { return t != kIgnored; }));
  }
  batch.tokens = stack_rows(rows, &Row::tokens, device);
  batch.targets = stack_rows(rows, &Row::targets, device);
  if (!std::all_of(rows.begin(), rows.end(), is_one_document)) {
    batch.segment = stack_rows(rows, &Row::segment, device);
  }
  batch.samples = torch::tensor(samples, torch::kInt64).to(device);
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
