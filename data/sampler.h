#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/packing.h"
#include "core/random.h"
#include "data/document_view.h"
#include "data/token_file.h"

namespace tandem {

/// One weighted source of the mixture.
struct SourceSpec {
  TokenFileSpec file;
  double weight = 1.0;
  ViewSpec view = {};
};

/// The windows of one view of a token file. Window k of an epoch is tokens [k * T, k * T + T] of the document stream: T inputs and, one on, T targets, so
/// that each token but the first is scored once. The last window is filled with unscored targets.
class WindowView {
 public:
  /// shuffle: "windows" orders window numbers anew each epoch; "documents" permutes documents first; "none" keeps file order (validation).
  /// `packing.pad_documents`: the stream is that of padded documents: 0 to multiple - 1 tokens of padding in front of each, counted by (stream, document of the file, copy), so the same in each
  /// epoch, and as many behind as fill a multiple; context_length is a multiple then. Copies of a document have paddings of their own. Padding has token 0 and segment -1, is never a target, and what stands before it has none.
  WindowView(DocumentView documents, int64_t context_length, const std::string& shuffle, RandomStream stream, const Packing& packing = {});
  int64_t windows() const { return windows_; }  ///< of one epoch
  int64_t tokens() const { return tokens_; }    ///< of one epoch, padding included
  /// Window number `k` counted over all epochs. `mask_documents` numbers documents in `segment` and leaves the first token of each
  /// unscored, else all of the row is segment 0. Weights are filled when the file was opened with weights, 0 where not scored.
  /// Safe to call from several threads.
  Row window(int64_t k, bool mask_documents) const;
  /// The same into row `r` of `rows`, whose length is the context length; weights, where `rows` has some, are 1 for the scored targets of a file without.
  void fill(int64_t k, bool mask_documents, const RowsView& rows, int64_t r) const;
  /// Window `k` is filled soon: a disk brings its tokens meanwhile. Does not wait.
  void will_fill(int64_t k) const;
  const DocumentView& documents() const { return documents_; }

 private:
  struct Epoch;  // the documents of a shuffled epoch's stream
  struct Kept;   // two of them: while rows of one are read, those of the next are asked for
  struct Part;   // the tokens of a document that stand in a window
  template <typename Each>
  void for_each_part(int64_t k, const Each& each) const;
  std::shared_ptr<const Epoch> shuffled_epoch(int64_t number) const;
  int64_t padding_before(int64_t document) const;  // tokens of padding in front of one of the view's
  std::vector<int64_t> make_begins() const;
  /// First token of each document with its padding, in the view's order, and the end of the last.
  const std::vector<int64_t>& begins() const { return begins_.empty() ? documents_.file().document_begins() : begins_; }
  DocumentView documents_;
  int64_t context_length_;
  std::string shuffle_;
  RandomStream stream_, padding_stream_;
  int64_t padded_to_;            // documents are padded to a multiple of this; 1 = not padded
  std::vector<int64_t> begins_;  // empty where the stream is the file's
  int64_t tokens_ = 0, windows_ = 0;
  std::shared_ptr<Kept> kept_;
};

/// Which source gives global sample k. Weights are quantised to 1/65536 (at least one each) and laid out greedily, earliest deadline
/// first, so that the count of each source is within one of its share at every prefix.
class Mixture {
 public:
  explicit Mixture(const std::vector<double>& weights);
  struct Pick { int64_t source, index; };  // the index-th sample of that source
  Pick pick(int64_t sample) const;

 private:
  static constexpr int64_t kPeriod = 65536;
  std::vector<int64_t> counts_;              // per period
  std::vector<uint16_t> order_;              // source of each position of a period
  std::vector<int64_t> rank_;                // how many of the same source stood before it
};

/// Global sample numbers to rows: the same for every number of ranks, micro-batch size and restart.
class Sampler {
 public:
  Sampler(const std::vector<SourceSpec>& sources, int64_t context_length, const std::string& shuffle, bool mask_documents, uint64_t seed, const Packing& packing = {});
  Row row(int64_t sample) const;
  /// The same into row `r` of `rows`, whose length is the context length.
  void fill(int64_t sample, const RowsView& rows, int64_t r) const;
  /// The sample is filled soon: a disk brings its tokens meanwhile. Does not wait.
  void will_fill(int64_t sample) const;
  int64_t context_length() const { return context_length_; }
  bool weighted() const;                      ///< whether any source has weights of targets
  int64_t tokens_per_epoch() const;           ///< over all sources, padding included
  std::string data_hash() const;              ///< of all sources' contents, weights of targets included, shares, and views where they are not the whole file
  const std::vector<std::shared_ptr<const TokenFile>>& files() const { return files_; }
  const WindowView& view(int64_t source) const { return views_[source]; }

 private:
  std::vector<std::shared_ptr<const TokenFile>> files_;
  std::vector<WindowView> views_;
  std::vector<double> weights_;
  std::vector<ViewSpec> specs_;
  Mixture mixture_;
  int64_t context_length_;
  bool mask_documents_;
};

}  // namespace tandem
