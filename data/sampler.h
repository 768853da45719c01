#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/packing.h"
#include "core/random.h"
#include "data/token_file.h"

namespace tandem {

/// One weighted source of the mixture.
struct SourceSpec {
  std::string path;    // token file prefix
  double weight = 1.0;
  bool target_weights = false;  // the loss weighs each target as PREFIX.weights says
};

/// The windows of one token file. Window k of an epoch is tokens [k * T, k * T + T] of the document stream: T inputs and, one on, T targets, so
/// that each token but the first is scored once. The last window is filled with unscored targets.
class WindowView {
 public:
  /// shuffle: "windows" orders window numbers anew each epoch; "documents" permutes documents first; "none" keeps file order (validation).
  /// Throws bad_file when the file has fewer than two tokens.
  WindowView(std::shared_ptr<const TokenFile> file, int64_t context_length, const std::string& shuffle, RandomStream stream);
  int64_t windows() const { return windows_; }  ///< of one epoch
  /// Window number `k` counted over all epochs. `mask_documents` numbers documents in `segment` and leaves the first token of each
  /// unscored, else all of the row is segment 0. Row::weights is filled when the file was opened with weights, 0 where not scored.
  /// Safe to call from several threads.
  Row window(int64_t k, bool mask_documents) const;

 private:
  struct Epoch;  // document order and prefix sums for "documents"
  struct Kept;   // the epoch used last
  std::shared_ptr<const Epoch> epoch(int64_t number) const;
  std::shared_ptr<const TokenFile> file_;
  int64_t context_length_, windows_;
  std::string shuffle_;
  RandomStream stream_;
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
  Sampler(const std::vector<SourceSpec>& sources, int64_t context_length, const std::string& shuffle, bool mask_documents, uint64_t seed);
  Row row(int64_t sample) const;
  int64_t tokens_per_epoch() const;           ///< over all sources
  std::string data_hash() const;              ///< of all sources' contents, weights of targets included, and shares
  const std::vector<std::shared_ptr<const TokenFile>>& files() const { return files_; }
  int64_t windows(int64_t source) const { return views_[source].windows(); }

 private:
  std::vector<std::shared_ptr<const TokenFile>> files_;
  std::vector<WindowView> views_;
  std::vector<double> weights_;
  Mixture mixture_;
  bool mask_documents_;
};

}  // namespace tandem
