#pragma once
#include <functional>
#include <optional>
#include <vector>

#include "data/sampler.h"
#include "nn/score.h"
#include "train/train_config.h"
#include "train/train_step.h"

namespace tandem {

/// The held-out text of a run: the first windows of each validation source in file order,
/// validation.tokens in all, an equal share each.
class Validation {
 public:
  Validation(const TrainConfig& config, const Packing& packing);  ///< `config` is resolved
  bool empty() const { return views_.empty(); }
  const WindowView& view(size_t source) const { return views_[source]; }
  /// Throws UserError (exit code 66) where it holds an id that the model has not.
  void check_ids(int64_t vocab_size) const;
  /// NLL over all of it, by all ranks: batches in turn, added up in their order, so that the sum is
  /// the same on any number of them. Nothing when `stop`, which all ranks ask at the same points and
  /// which answers all the same, became true on the way.
  std::optional<ScoreResult> score(const Run& run, const std::function<bool()>& stop) const;

 private:
  /// The batch of source `v` that begins at window `begin`.
  std::vector<Row> rows(size_t v, int64_t begin) const;
  int64_t batch_;
  bool mask_documents_;
  Packing packing_;
  std::vector<WindowView> views_;
  std::vector<int64_t> windows_;  // of each source
};

}  // namespace tandem
