#include "train/validation.h"

#include <algorithm>
#include <utility>

namespace tandem {
namespace {

/// The results of all data ranks, in their order, of those that count.
std::vector<ScoreResult> all_results(const ScoreResult& mine, bool counts, const Mesh& mesh,
                                     torch::Device device) {
  if (mesh.data->size() == 1) return {mine};
  const auto columns = static_cast<int64_t>(mine.nll_by_position.size());
  std::vector<double> packed = {counts ? 1.0 : 0.0, mine.nll_sum, mine.weight};
  packed.insert(packed.end(), mine.nll_by_position.begin(), mine.nll_by_position.end());
  packed.insert(packed.end(), mine.count_by_position.begin(), mine.count_by_position.end());
  const auto sent = torch::tensor(packed, torch::kFloat64).to(device);
  auto received = torch::empty({mesh.data->size(), sent.numel()}, sent.options());
  mesh.data->all_gather(received, sent)->wait();
  received = received.cpu();
  std::vector<ScoreResult> results;
  for (int64_t r = 0; r < mesh.data->size(); ++r) {
    const auto* values = received[r].const_data_ptr<double>();
    if (values[0] == 0) continue;
    results.push_back({values[1],
                       values[2],
                       {values + 3, values + 3 + columns},
                       {values + 3 + columns, values + 3 + 2 * columns}});
  }
  return results;
}

}  // namespace

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

std::optional<ScoreResult> Validation::score(const Run& run,
                                             const std::function<bool()>& stop) const {
  const ForwardContext context = context_of(run);
  const Mesh& mesh = *run.mesh;
  ScoreResult result;
  for (size_t v = 0; v < views_.size(); ++v) {
    for (int64_t begin = 0; begin < windows_[v]; begin += batch_ * mesh.data->size()) {
      if (stop()) return std::nullopt;
      // Ranks beyond the end score its last batch for the sake of the others, who may need their
      // part of the weights.
      const int64_t own = begin + batch_ * mesh.data->rank();
      const int64_t last = (windows_[v] - 1) / batch_ * batch_;
      std::vector<Row> batch = rows(v, std::min(own, last));
      apply_packing(batch, packing_);
      const ScoreResult scored =
          score_rows(*run.model, batch, run.device, batch_, /*chunk=*/0, {}, context);
      for (const ScoreResult& of_rank : all_results(scored, own <= last, mesh, run.device))
        result += of_rank;
    }
  }
  return result;
}

}  // namespace tandem
