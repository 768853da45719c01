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

}  // namespace

Row row_of_sequence(std::span<const int64_t> tokens, const Packing& packing) {
  if (tokens.empty()) throw std::logic_error("row_of_sequence: no tokens, expected at least 1");
  if (packing.multiple < 1 || packing.unscored_prefix < 0) {
    throw std::logic_error("row_of_sequence: multiple = " + std::to_string(packing.multiple) +
                           ", unscored_prefix = " + std::to_string(packing.unscored_prefix) +
                           ", expected at least 1 and 0");
  }
  const size_t n = tokens.size(), columns = std::max<size_t>(n - 1, 1);
  Row row;
  row.tokens.assign(tokens.begin(), tokens.begin() + static_cast<std::ptrdiff_t>(columns));
  row.targets.assign(tokens.begin() + 1, tokens.end());
  row.targets.resize(columns, kIgnored);  // a lone token has nothing to score
  row.segment.assign(columns, 0);
  const size_t unscored = std::min(columns, static_cast<size_t>(packing.unscored_prefix));
  std::fill_n(row.targets.begin(), unscored, kIgnored);

  const size_t multiple = static_cast<size_t>(packing.multiple);
  pad(row, (columns + multiple - 1) / multiple * multiple);
  return row;
}

std::vector<double> log_probs_of_sequence(std::span<const float> nll, int64_t n) {
  if (n < 1 || static_cast<int64_t>(nll.size()) < n - 1) {
    throw std::logic_error("log_probs_of_sequence: n = " + std::to_string(n) + " tokens of " +
                           std::to_string(nll.size()) + " columns, expected 1 to columns + 1");
  }
  std::vector<double> log_probs(static_cast<size_t>(n), std::numeric_limits<double>::quiet_NaN());
  for (size_t i = 1; i < log_probs.size(); ++i) log_probs[i] = -static_cast<double>(nll[i - 1]);
  return log_probs;
}

void pad_rows(std::vector<Row>& rows) {
  size_t longest = 0;
  for (const Row& row : rows) longest = std::max(longest, row.tokens.size());
  for (Row& row : rows) pad(row, longest);
}

}  // namespace tandem
