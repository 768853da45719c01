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

/// Takes up to `n` targets of row `r` from column `begin` on out of scoring.
void unscore(const RowsView& rows, int64_t r, int64_t begin, int64_t n) {
  n = std::min(n, rows.length - begin);
  if (n <= 0) return;
  const int64_t at = r * rows.length + begin;
  std::fill_n(rows.targets + at, n, kIgnored);
  if (rows.weights) std::fill_n(rows.weights + at, n, 0.0f);
}

void check(const Packing& packing, const char* who) {
  if (packing.multiple >= 1 && packing.unscored_prefix >= 0) return;
  throw std::logic_error(std::string(who) + ": multiple = " + std::to_string(packing.multiple) +
                         ", unscored_prefix = " + std::to_string(packing.unscored_prefix) +
                         ", expected at least 1 and 0");
}

class PlainRows : public RowsMemory {
 public:
  PlainRows(int64_t rows, int64_t length, bool weighted)
      : tokens_(make<int64_t>(rows * length)),
        targets_(make<int64_t>(rows * length)),
        segment_(make<int32_t>(rows * length)),
        weights_(weighted ? make<float>(rows * length) : nullptr),
        samples_(make<int64_t>(rows)),
        view_{rows,           length,         tokens_.get(), targets_.get(),
              segment_.get(), weights_.get(), samples_.get()} {}
  RowsView view() const override { return view_; }

 private:
  template <typename T>
  static std::unique_ptr<T[]> make(int64_t n) {
    return std::make_unique_for_overwrite<T[]>(static_cast<size_t>(n));
  }
  std::unique_ptr<int64_t[]> tokens_, targets_;
  std::unique_ptr<int32_t[]> segment_;
  std::unique_ptr<float[]> weights_;
  std::unique_ptr<int64_t[]> samples_;
  RowsView view_;
};

}  // namespace

int64_t Packing::padding_to_continue(int64_t n) const {
  if (n < 1) {
    throw std::logic_error("padding_to_continue: a prompt of " + std::to_string(n) +
                           " tokens, expected at least 1");
  }
  if (!pad_documents) return std::max<int64_t>(0, multiple - n);
  return (multiple - n % multiple) % multiple;
}

RowsView RowsView::slice(int64_t first, int64_t n) const {
  if (first < 0 || n < 0 || first + n > rows)
    throw std::logic_error("RowsView::slice: rows " + std::to_string(first) + " to " +
                           std::to_string(first + n) + " of " + std::to_string(rows));
  const int64_t at = first * length;
  return {n,
          length,
          tokens + at,
          targets + at,
          segment + at,
          weights ? weights + at : nullptr,
          samples + first};
}

RowsView view_of(Row& row) {
  return {1,
          static_cast<int64_t>(row.tokens.size()),
          row.tokens.data(),
          row.targets.data(),
          row.segment.data(),
          row.weights.empty() ? nullptr : row.weights.data(),
          &row.sample};
}

std::unique_ptr<RowsMemory> make_rows_memory(int64_t rows, int64_t length, bool weighted) {
  return std::make_unique<PlainRows>(rows, length, weighted);
}

std::unique_ptr<RowsMemory> pack_rows(std::span<const Row> rows,
                                      const MakeRowsMemory& make_memory) {
  const size_t length = rows.empty() ? 0 : rows.front().tokens.size();
  bool weighted = false;
  for (const Row& row : rows) {
    if (row.tokens.size() != length || row.targets.size() != length || row.segment.size() != length)
      throw std::logic_error("pack_rows: a row has " + std::to_string(row.tokens.size()) +
                             " tokens, " + std::to_string(row.targets.size()) + " targets and " +
                             std::to_string(row.segment.size()) + " segments, expected " +
                             std::to_string(length) + " each");
    if (!row.weights.empty() && row.weights.size() != length)
      throw std::logic_error("pack_rows: a row has " + std::to_string(row.weights.size()) +
                             " weights, expected " + std::to_string(length) + " or none");
    weighted = weighted || !row.weights.empty();
  }
  auto memory =
      make_memory(static_cast<int64_t>(rows.size()), static_cast<int64_t>(length), weighted);
  for (size_t r = 0; r < rows.size(); ++r) {
    const RowsView to = memory->view().slice(static_cast<int64_t>(r), 1);
    const Row& row = rows[r];
    std::copy(row.tokens.begin(), row.tokens.end(), to.tokens);
    std::copy(row.targets.begin(), row.targets.end(), to.targets);
    std::copy(row.segment.begin(), row.segment.end(), to.segment);
    if (row.weights.empty()) {
      if (weighted) std::fill_n(to.weights, length, 1.0f);
    } else {
      std::copy(row.weights.begin(), row.weights.end(), to.weights);
    }
    *to.samples = row.sample;
  }
  return memory;
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
  unscore(view_of(row), 0, 0, packing.unscored_prefix);
  unscore(view_of(row), 0, static_cast<int64_t>(front), std::max<int64_t>(unscored, 0));

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

void apply_packing(const RowsView& rows, const Packing& packing) {
  check(packing, "apply_packing");
  for (int64_t r = 0; r < rows.rows; ++r) {
    const int32_t* const segments = rows.segment + r * rows.length;
    unscore(rows, r, 0, packing.unscored_prefix);
    int32_t before = -1;  // segment of the block before; -1 = all padding
    for (int64_t begin = 0; begin < rows.length; begin += packing.multiple) {
      const int64_t end = std::min(begin + packing.multiple, rows.length);
      const int32_t segment = *std::max_element(segments + begin, segments + end);
      if (before >= 0 && segment >= 0 && segment != before)
        unscore(rows, r, begin, packing.unscored_prefix);
      before = segment;
    }
  }
}

void apply_packing(std::vector<Row>& rows, const Packing& packing) {
  check(packing, "apply_packing");
  for (Row& row : rows) apply_packing(view_of(row), packing);
}

void pad_rows(std::vector<Row>& rows) {
  size_t longest = 0;
  for (const Row& row : rows) longest = std::max(longest, row.tokens.size());
  for (Row& row : rows) pad(row, longest);
}

}  // namespace tandem
