#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

namespace tandem {

/// How a model wants its rows. A model says it (LanguageModel::packing); training, score, eval and generate all lay rows out by it.
struct Packing {
  int64_t multiple = 1;         // a row's length is a multiple of this: the block length of a Block Transformer
  int64_t unscored_prefix = 0;  // the first columns of a row, and of a document that sees no other, for whose targets the model gives no probability
  bool pad_documents = false;   // documents are padded in front, and behind to a multiple, so that none shares a block with another
  int64_t max_length = 0;       // no row may be longer; 0 = any length

  /// Tokens of padding in front of a sequence whose every token but the first is to be scored.
  int64_t padding_to_score() const { return pad_documents ? multiple - 1 : 0; }
  /// Tokens of padding in front of a prompt of n tokens: up to a multiple, so that whole blocks follow. A model that does not pad documents needs none, unless
  /// the prompt does not fill a block.
  int64_t padding_to_continue(int64_t n) const;
};
/// A token that only fills a block: what LanguageModel::extend takes for padding in front of a row.
inline constexpr int64_t kPadding = -1;

/// One row of a batch on the host: column t feeds tokens[t] and scores targets[t] = the token after it.
struct Row {
  std::vector<int64_t> tokens;
  std::vector<int64_t> targets;  // kIgnored = not scored
  std::vector<int32_t> segment;  // document number within the row; -1 = padding
  int64_t sample = 0;            // global sample number
  std::vector<float> weights = {};  // of each target in the loss, >= 0; empty = all 1
};
inline constexpr int64_t kIgnored = -100;

/// Rows of one length in memory that belongs to somebody else, one row behind the other.
struct RowsView {
  int64_t rows = 0, length = 0;
  int64_t* tokens = nullptr;   // [rows, length] each, as in Row
  int64_t* targets = nullptr;
  int32_t* segment = nullptr;
  float* weights = nullptr;    // nullptr = all 1
  int64_t* samples = nullptr;  // [rows]
  /// Rows [first, first + n).
  RowsView slice(int64_t first, int64_t n) const;
};
RowsView view_of(Row& row);  ///< the row where it lies

/// Memory for rows. nn/batch has one that a GPU reads from directly.
class RowsMemory {
 public:
  virtual ~RowsMemory() = default;
  virtual RowsView view() const = 0;
};
/// Makes memory for rows that need not be cleared: `weighted` with weights.
using MakeRowsMemory = std::function<std::unique_ptr<RowsMemory>(int64_t rows, int64_t length, bool weighted)>;
std::unique_ptr<RowsMemory> make_rows_memory(int64_t rows, int64_t length, bool weighted);  ///< plain memory
/// Copies of rows of one length, with weights where any row has some: 1 for those without. Throws std::logic_error for rows of different lengths.
std::unique_ptr<RowsMemory> pack_rows(std::span<const Row> rows, const MakeRowsMemory& make_memory = make_rows_memory);

/// Lays one sequence of n tokens out as a row that scores tokens 1 .. n-1 given what is before them, but for the first `unscored` of these: padding_to_score()
/// columns of padding, then n - 1, padded at the end to `packing.multiple`; padding has token 0 and segment -1. n = 1 gives one column and no target.
Row row_of_sequence(std::span<const int64_t> tokens, const Packing& packing, int64_t unscored = 0);
/// Back again: log p of each of the n tokens from the row's NLL; NaN where not scored.
std::vector<double> log_probs_of_sequence(std::span<const float> nll, int64_t n, const Packing& packing);
/// Targets that the model gives no probability become unscored: in the first unscored_prefix columns of each row and in those of each block that is the first of its
/// document, where documents have segments of their own.
void apply_packing(std::vector<Row>& rows, const Packing& packing);
void apply_packing(const RowsView& rows, const Packing& packing);

/// Makes rows equally long by padding at the end with token 0, ignored targets, segment -1 and, where a row has weights, weight 0.
void pad_rows(std::vector<Row>& rows);

}  // namespace tandem
