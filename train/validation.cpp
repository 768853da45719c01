#include "train/validation.h"

#include <algorithm>
#include <utility>

#include "train/train_step.h"

namespace tandem {

Validation::Validation(const TrainConfig& config, const Packing& packing)
    : batch_(config.training.micro_batch_size.value()),
      mask_documents_(config.data.mask_documents),
      packing_(packing) {
  const auto& sources = config.data.validation;
  const int64_t length = config.training.context_length;
  for (const auto& source : sources) {
    DocumentView documents(std::make_shared<const TokenFile>(source.file()), source.filter());
    views_.emplace_back(std::move(documents), length, "none", RandomStream(), packing);
    const int64_t share = config.validation.tokens / static_cast<int64_t>(sources.size()) / length;
    windows_.push_back(std::clamp<int64_t>(share, 1, views_.back().windows()));
  }
}

std::vector<Row> Validation::rows(size_t v, int64_t begin) const {
  std::vector<Row> rows;
  for (int64_t k = begin; k < std::min(windows_[v], begin + batch_); ++k)
    rows.push_back(views_[v].window(k, mask_documents_));
  return rows;
}

void Validation::check_ids(int64_t vocab_size) const {
  for (size_t v = 0; v < views_.size(); ++v) {
    for (int64_t k = 0; k < windows_[v]; ++k) {
      Row row = views_[v].window(k, mask_documents_);
      tandem::check_ids(view_of(row), vocab_size, "the validation data");
    }
  }
}

std::optional<ScoreResult> Validation::score(LanguageModel& model, torch::Device device,
                                             const std::function<bool()>& stop) const {
  ScoreResult result;
  for (size_t v = 0; v < views_.size(); ++v) {
    for (int64_t begin = 0; begin < windows_[v]; begin += batch_) {
      if (stop()) return std::nullopt;
      std::vector<Row> batch = rows(v, begin);
      apply_packing(batch, packing_);
      result += score_rows(model, batch, device, batch_);
    }
  }
  return result;
}

}  // namespace tandem
