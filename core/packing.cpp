#include "core/packing.h"

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <string>

namespace tandem {
namespace {

void pad(Row& row, size_t columns) {
  row.tokens.resize(columns, 0);
  row.targets.resize(columns, kIgnored);
  row.segment.resize(columns, -1);
  if (!row.weights.empty()) row.weights.resize(columns, 0);
}

/// Takes up to `n` targets from column `begin` on out of scoring.
void unscore(Row& row, size_t begin, size_t n) {
  const auto clear = [&](auto& values, auto nothing) {
    if (begin >= values.size()) return;
    std::fill_n(values.begin() + static_cast<std::ptrdiff_t>(begin),
                std::min(n, values.size() - begin), nothing);
  };
  clear(row.targets, kIgnored);
  clear(row.weights, 0.0f);
}

void check(const Packing& packing, const char* who) {
  if (packing.multiple >= 1 && packing.unscored_prefix >= 0) return;
  throw std::logic_error(std::string(who) + ": multiple = " + std::to_string(packing.multiple) +
                         ", unscored_prefix = " + std::to_string(packing.unscored_prefix) +
                         ", expected at least 1 and 0");
}

}  // namespace

int64_t Packing::padding_to_continue(int64_t n) const {
  if (n < 1) {
    throw std::logic_error("padding_to_continue: a prompt of " + std::to_string(n) +
                           " tokens, expected at least 1");
  }
  if (!pad_documents) return std::max<int64_t>(0, multiple - n);
  return (multiple - n % multiple) % multiple;
}

Row row_of_sequence(std::span<const int64_t> tokens, const Packing& packing, int64_t unscored) {
  if (tokens.empty()) throw std::logic_error("row_of_sequence: no tokens, expected at least 1");
  check(packing, "row_of_sequence");
  const size_t n = std::max<size_t>(tokens.size() - 1, 1);  // columns of the sequence
  const auto front = static_cast<size_t>(packing.padding_to_score());
  Row row;
  pad(row, front);
  row.tokens.insert(row.tokens.end(), tokens.begin(),
                    tokens.begin() + static_cast<std::ptrdiff_t>(n));
  row.targets.insert(row.targets.end(), tokens.begin() + 1, tokens.end());
  row.targets.resize(front + n, kIgnored);  // a lone token has nothing to score
  row.segment.resize(front + n, 0);
  unscore(row, 0, static_cast<size_t>(packing.unscored_prefix));
  unscore(row, front, static_cast<size_t>(std::max<int64_t>(unscored, 0)));

  const auto multiple = static_cast<size_t>(packing.multiple);
  pad(row, (front + n + multiple - 1) / multiple * multiple);
  return row;
}

std::vector<double> log_probs_of_sequence(std::span<const float> nll, int64_t n,
                                          const Packing& packing) {
  const int64_t front = packing.padding_to_score();
  if (n < 1 || static_cast<int64_t>(nll.size()) < front + n - 1) {
    throw std::logic_error("log_probs_of_sequence: n = " + std::to_string(n) + " tokens after " +
                           std::to_string(front) + " of padding, of " + std::to_string(nll.size()) +
                           " columns, expected 1 to columns - padding + 1");
  }
  std::vector<double> log_probs(static_cast<size_t>(n), std::numeric_limits<double>::quiet_NaN());
  for (size_t i = 1; i < log_probs.size(); ++i)
    log_probs[i] = -static_cast<double>(nll[static_cast<size_t>(front) + i - 1]);
  return log_probs;
}

void apply_packing(std::vector<Row>& rows, const Packing& packing) {
  check(packing, "apply_packing");
  const auto length = static_cast<size_t>(packing.multiple),
             prefix = static_cast<size_t>(packing.unscored_prefix);
  for (Row& row : rows) {
    unscore(row, 0, prefix);
    int32_t before = -1;  // segment of the block before; -1 = all padding
    for (size_t begin = 0; begin < row.segment.size(); begin += length) {
      const auto first = row.segment.begin() + static_cast<std::ptrdiff_t>(begin);
      const auto n = std::min(length, row.segment.size() - begin);
      const int32_t segment = *std::max_element(first, first + static_cast<std::ptrdiff_t>(n));
      if (before >= 0 && segment >= 0 && segment != before) unscore(row, begin, prefix);
      before = segment;
    }
  }
}

void pad_rows(std::vector<Row>& rows) {
  size_t longest = 0;
  for (const Row& row : rows) longest = std::max(longest, row.tokens.size());
  for (Row& row : rows) pad(row, longest);
}

}  // namespace tandem
