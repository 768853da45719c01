#pragma once
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "eval/nll_windows.h"
#include "nn/language_model.h"

namespace tandem {

/// Some columns of one of the rows that are scored together.
struct ScoredPart {
  size_t row = 0;
  int64_t begin = 0;  // of its columns, padding in front included
  const Row& columns;
  std::span<const double> nll;  // of each target of `columns` that is scored; empty where none is
};
/// The parts of a row come in order.
using OnScoredPart = std::function<void(const ScoredPart&)>;

/// What gives targets their NLL.
class NllScorer {
 public:
  virtual ~NllScorer() = default;
  virtual void score(std::span<const NllSequence> rows, const OnScoredPart& on_part) = 0;
  virtual int64_t state_bytes() const { return 0; }  ///< the largest state that was held
};

/// A model. Without `chunk` rows go whole through LanguageModel::loss. With it they go in pieces of
/// `chunk` columns through a state, which gives the same numbers in memory that grows with the
/// state only: what comes before the first scored target of all rows through
/// extend(Want::kNothing), and so past the layers that only predictions need, the rest through
/// extend_nll. Throws bad_file for a token outside the vocabulary.
class ModelScorer final : public NllScorer {
 public:
  ModelScorer(LanguageModel& model, torch::Device device, int64_t chunk = 0,
              std::optional<torch::Dtype> cache_dtype = {});
  void score(std::span<const NllSequence> rows, const OnScoredPart& on_part) override;
  int64_t state_bytes() const override { return state_bytes_; }

 private:
  void score_whole(std::span<const NllSequence> rows, const OnScoredPart& on_part);
  void score_in_pieces(std::span<const NllSequence> rows, const OnScoredPart& on_part);
  LanguageModel& model_;
  torch::Device device_;
  int64_t chunk_;
  std::optional<torch::Dtype> cache_dtype_;
  int64_t state_bytes_ = 0;
};

/// A table of the NLL of each token, whatever is before it. Rows are laid out by `packing`, so that
/// the same targets are scored as with a model.
class UnigramScorer final : public NllScorer {
 public:
  UnigramScorer(std::vector<double> nll, const Packing& packing);
  void score(std::span<const NllSequence> rows, const OnScoredPart& on_part) override;

 private:
  std::vector<double> nll_;
  Packing packing_;
};

/// NLL of tokens under their frequencies in `file`, each counted once more than it occurs:
/// [vocab_size]. Throws bad_file for a token outside the vocabulary.
std::vector<double> unigram_nll(const TokenFile& file, int64_t vocab_size);

}  // namespace tandem
