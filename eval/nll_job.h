#pragma once
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "eval/nll.h"
#include "eval/nll_curve.h"
#include "eval/nll_windows.h"
#include "eval/recall_split.h"

namespace tandem {

/// The token files of an evaluation, opened once for all models.
struct NllData {
  std::vector<std::shared_ptr<const TokenFile>> files = {};
  std::vector<std::string> hashes = {};
  std::shared_ptr<const TokenFile> bigrams_from = {};  // null: no bigram is frequent
  std::string bigrams_hash = "";
  FrequentBigrams frequent = {};
};
/// Throws bad_file for one that cannot be read.
NllData open_nll_data(const NllConfig& config);

/// How one model is to be scored.
struct NllJob {
  const NllConfig& config;
  const EvalArgs& args;
  const LoadedModel& loaded;
  const NllData& data;
  std::string input = "";  // the model, as the user named it
  Packing packing = {};
  int64_t length = 0;  // inputs of a window, or of a document at most
  bool mask_documents = false;
  std::optional<int64_t> bos = {};
  std::vector<NllUnits> sources = {};  // one for each file
  int64_t stride() const { return config.stride.value_or(length); }
  /// The same for all sources, so that their sums add up.
  CurveGrid grid() const;
  /// All that decides the numbers of these sources, beside the model.
  void add_rules(nlohmann::ordered_json& identity, std::span<const size_t> which) const;
};
/// Throws UserError where the settings do not suit the model or the data.
NllJob make_nll_job(const NllConfig& config, const EvalArgs& args, const LoadedModel& loaded,
                    const NllData& data, const std::string& input);

/// Throws bad_usage where `file` was made with another tokenizer than the model's.
void check_tokenizer(const TokenFile& file, const LoadedModel& loaded, const std::string& input);

}  // namespace tandem
