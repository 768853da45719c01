#pragma once
#include <algorithm>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "core/packing.h"
#include "data/token_file.h"

namespace tandem {

/// Tokens [begin, begin + tokens) of a file, with BOS in front where there is one: what is scored
/// by itself. Its row, laid out as row_of_sequence does, is read in parts, so that a long one is
/// never held whole.
struct NllSequence {
  std::shared_ptr<const TokenFile> file;
  int64_t begin = 0, tokens = 0;
  std::optional<int64_t> bos = {};
  int64_t unscored = 0;         // first targets that are left out
  bool mask_documents = false;  // tokens see their document only; without BOS and padding in front
  int64_t ids() const { return tokens + (bos ? 1 : 0); }
  int64_t inputs() const { return std::max<int64_t>(ids() - 1, 1); }
  int64_t targets() const { return ids() - 1; }
  int64_t columns(const Packing& packing) const;
  /// The first column that is scored; columns() where none is.
  int64_t first_scored(const Packing& packing) const;
  /// Columns [first, first + n) of its row; behind its end they are padding.
  Row part(int64_t first, int64_t n, const Packing& packing) const;
  Row row(const Packing& packing) const;  ///< all of them, documents masked
};

/// Windows over the first `tokens` tokens of a file, one every `stride` tokens: window k has the
/// inputs [k * stride, k * stride + length) and, one on, as many targets. The first window scores
/// all of its targets, each later one those that no window before it scored, so that every token
/// but the first is scored once, as far as `skip`, `last` and a model's unscored prefix let it.
/// With BOS, window k has BOS and the tokens before its last, and the targets [k * stride,
/// k * stride + length): the first token of a window is scored too. Documents are masked for models
/// without blocks only.
struct NllWindows {
  std::shared_ptr<const TokenFile> file;
  int64_t tokens = 0, length = 0, stride = 0;
  int64_t skip = 0;  // first targets of each window that are left out
  int64_t last = 0;  // only so many targets at the end of each are scored; 0 = all
  std::optional<int64_t> bos = {};
  bool mask_documents = false;
  int64_t targets() const { return tokens - (bos ? 0 : 1); }
  int64_t count() const;
  NllSequence sequence(int64_t k) const;
  Row row(int64_t k, const Packing& packing) const { return sequence(k).row(packing); }
};

/// Documents of a file from their start on, each alone, cut after `length` inputs.
struct NllDocuments {
  std::shared_ptr<const TokenFile> file;
  int64_t length = 0, skip = 0, last = 0;
  std::optional<int64_t> bos = {};
  std::vector<int64_t> chosen = {};  // the file's numbers
  struct Count {
    int64_t documents = 0, tokens = 0;
  };
  Count left_out = {};        // by their length
  Count without_target = {};  // one token, and no BOS before it
  Count not_reached = {};     // behind the first so many
  Count cut = {};             // their tokens behind `length`
  /// Chooses documents of `min_length` to `max_length` tokens (0 = any), the first `most` of these
  /// (0 = all). Throws bad_file where none is left.
  void choose(int64_t min_length, int64_t max_length, int64_t most);
  NllSequence sequence(int64_t k) const;
};

/// Windows or documents, whichever.
struct NllUnits {
  std::shared_ptr<const TokenFile> file;
  int64_t count = 0;
  int64_t tokens = 0;     // of the file that they hold; of windows, each once
  int64_t positions = 0;  // targets of the longest
  std::function<NllSequence(int64_t k)> sequence = {};
  nlohmann::ordered_json counts = {};  // of documents, for the record; null of windows
};
NllUnits units_of(const NllWindows& windows);
NllUnits units_of(const NllDocuments& documents);

}  // namespace tandem
