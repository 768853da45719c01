#include "eval/nll_job.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/error.h"
#include "core/log.h"
#include "data/document_view.h"
#include "data/token_manifest.h"
#include "nn/score.h"

namespace tandem {
namespace {

using Json = nlohmann::ordered_json;

bool trained_with_masks(const ConfigNode& config) {
  const ConfigNode* data = config.find("data");
  const ConfigNode* mask = data ? data->find("mask_documents") : nullptr;
  return mask && mask->scalar == "true";
}

int64_t window_length(const NllConfig& config, const LoadedModel& loaded,
                      const std::string& input) {
  if (!config.context_length && loaded.context_length == 0) {
    throw bad_usage(input +
                    " does not say what context length it was trained with; give --context-length");
  }
  const Packing packing = loaded.model->packing();
  const int64_t wanted = config.context_length.value_or(loaded.context_length);
  if (packing.max_length == 0) return wanted;
  const int64_t longest = longest_to_score(packing);
  if (config.context_length && wanted > longest) {
    const int64_t padding = packing.padding_to_score();
    throw bad_usage(fmt::format("--context-length {}, expected at most {}, the positions of {}{}",
                                wanted, longest, input,
                                padding > 0 ? fmt::format(" but {} of padding", padding) : ""));
  }
  if (wanted <= longest) return wanted;
  log_line(fmt::format(
      "{} is scored in windows of {} tokens, not the {} of its training: it has no more positions",
      input, longest, wanted));
  return longest;
}

bool use_masks(const NllConfig& config, const LoadedModel& loaded, const std::string& input) {
  const bool trained = trained_with_masks(loaded.config);
  const bool wanted = config.mask_documents.value_or(trained);
  const int64_t block_length = loaded.model->packing().multiple;
  if (!wanted || config.unit == "documents") return false;  // a document alone sees no other
  if (block_length > 1) {
    const char* const why =
        "documents that see no other need rows padded to blocks, as in training";
    if (config.mask_documents) {
      throw bad_usage(
          fmt::format("--mask-documents true, but {} is a model of blocks of {} tokens; "
                      "give --mask-documents false: {}",
                      input, block_length, why));
    }
    log_warning(
        fmt::format("{} was trained with document masks and is scored without: {}", input, why));
    return false;
  }
  if (config.chunk > 0)
    throw bad_usage("--chunk needs windows without document masks; give --mask-documents false");
  if (config.bos != "none") {
    throw bad_usage(
        "--bos window needs windows without document masks; give --mask-documents false");
  }
  return true;
}

std::optional<int64_t> bos_of(const NllConfig& config, const LoadedModel& loaded,
                              const std::string& input) {
  if (config.bos == "none") return std::nullopt;
  const auto id = loaded.tokenizer ? loaded.tokenizer->bos() : std::nullopt;
  if (!id) {
    throw bad_usage("--bos window: " + input +
                    (loaded.tokenizer ? " has a tokenizer without BOS" : " has no tokenizer") +
                    "; give --bos none");
  }
  return *id;
}

/// Where documents have no effect that a setting asked for.
void warn_of_documents(const NllConfig& config, const TokenFile& file, bool masked,
                       const std::string& input) {
  const bool apart = config.unit == "documents";
  if (!masked && !apart) {
    if (config.eos_id)
      log_warning("--eos-id has no effect on " + input + ": it is scored without document masks");
    return;
  }
  const std::string why = why_one_document(file, config.eos_id);
  if (why.empty()) return;
  log_warning(why + ", so that it is one document" +
              (apart ? "" : ": document masks have no effect on " + input));
}

NllUnits make_units(const NllJob& job, std::shared_ptr<const TokenFile> file) {
  const NllConfig& config = job.config;
  if (config.unit == "documents") {
    NllDocuments documents{.file = std::move(file),
                           .length = job.length,
                           .skip = config.skip,
                           .last = config.last,
                           .bos = job.bos};
    documents.choose(config.min_length.value_or(0), config.max_length.value_or(0),
                     config.max_documents.value_or(0));
    return units_of(documents);
  }
  NllWindows windows{.file = std::move(file),
                     .length = job.length,
                     .stride = job.stride(),
                     .skip = config.skip,
                     .last = config.last,
                     .bos = job.bos,
                     .mask_documents = job.mask_documents};
  const int64_t available = windows.file->tokens(), first = job.bos ? 0 : 1;
  windows.tokens = first + std::min(available - first, config.max_tokens.value_or(available));
  if (windows.targets() < 1) {
    throw bad_file(windows.file->prefix(),
                   fmt::format("holds {} tokens, expected at least {}", available, 1 + first));
  }
  return units_of(windows);
}

}  // namespace

NllData open_nll_data(const NllConfig& config) {
  NllData data;
  for (const std::string& path : config.data) {
    data.files.push_back(std::make_shared<const TokenFile>(
        TokenFileSpec{.path = path, .dtype = config.data_dtype, .eos_id = config.eos_id}));
    data.hashes.push_back(data.files.back()->content_hash());
  }
  if (config.frequent_bigrams_from.empty()) return data;
  data.bigrams_from = std::make_shared<const TokenFile>(
      TokenFileSpec{.path = config.frequent_bigrams_from, .dtype = config.data_dtype});
  data.bigrams_hash = data.bigrams_from->content_hash();
  data.frequent = {*data.bigrams_from, config.frequent_bigrams};
  return data;
}

void check_tokenizer(const TokenFile& file, const LoadedModel& loaded, const std::string& input) {
  if (!loaded.tokenizer) return;
  check_made_by(file, *loaded.tokenizer, "that of " + input,
                "run `tandem data tokenize` again with the model's");
}

CurveGrid NllJob::grid() const {
  int64_t positions = 1;
  for (const NllUnits& units : sources) positions = std::max(positions, units.positions);
  return {positions, config.buckets, config.bucket_scale};
}

void NllJob::add_rules(Json& identity, std::span<const size_t> which) const {
  const bool documents = config.unit == "documents", several = which.size() > 1;
  const auto optional = [](const std::optional<int64_t>& n) { return n ? Json(*n) : Json(); };
  Json names = Json::array(), hashes = Json::array();
  int64_t tokens = 0, units = 0;
  for (const size_t i : which) {
    names.push_back(sources[i].file->prefix());
    hashes.push_back(data.hashes[i]);
    tokens += sources[i].tokens, units += sources[i].count;
  }
  identity["data"] = several ? Json("all") : names.front();
  if (several) identity["sources"] = names;
  identity["data_hash"] = several ? hashes : hashes.front();
  identity["unit"] = config.unit;
  identity["tokens"] = tokens;
  identity[config.unit] = units;
  identity["window"] = length;
  identity["stride"] = documents ? Json() : Json(stride());
  if (documents) {
    identity["min_length"] = optional(config.min_length);
    identity["max_length"] = optional(config.max_length);
    identity["max_documents"] = optional(config.max_documents);
  }
  identity["bos"] = config.bos;  // none: cut out of the stream of documents as it is
  identity["mask_documents"] = mask_documents;
  identity["skip"] = config.skip;
  identity["last"] = config.last > 0 ? Json(config.last) : Json();
  identity["padding"] = packing.padding_to_score();  // tokens in front of each window
  // first targets of each window that the model gives no probability
  identity["unscored_prefix"] =
      std::max<int64_t>(0, packing.unscored_prefix - packing.padding_to_score());
  identity["chunk"] = config.chunk;
  identity["cache_dtype"] = config.chunk > 0 ? Json(config.cache_dtype) : Json();
  identity["positions"] = grid().edges.back();
  identity["buckets"] = config.buckets;
  identity["bucket_scale"] = config.bucket_scale;
  identity["fit"] = config.fit == "none" ? Json() : Json(config.fit);
  identity["recall_split"] = config.recall_split;
  if (!config.frequent_bigrams_from.empty()) {
    identity["frequent_bigrams_from"] = config.frequent_bigrams_from;
    identity["frequent_bigrams_hash"] = data.bigrams_hash;
    identity["frequent_bigrams"] = config.frequent_bigrams;
    identity["frequent_bigrams_found"] = data.frequent.size();
  }
}

NllJob make_nll_job(const NllConfig& config, const EvalArgs& args, const LoadedModel& loaded,
                    const NllData& data, const std::string& input) {
  NllJob job{.config = config, .args = args, .loaded = loaded, .data = data, .input = input};
  for (const auto& file : data.files) check_tokenizer(*file, loaded, input);
  if (data.bigrams_from) check_tokenizer(*data.bigrams_from, loaded, input);
  job.packing = loaded.model->packing();
  job.length = window_length(config, loaded, input);
  if (job.stride() > job.length) {
    throw bad_usage(fmt::format("--stride {}, expected at most the window's {} tokens",
                                job.stride(), job.length));
  }
  job.mask_documents = use_masks(config, loaded, input);
  job.bos = bos_of(config, loaded, input);
  for (const auto& file : data.files) {
    job.sources.push_back(make_units(job, file));
    warn_of_documents(config, *file, job.mask_documents, input);
  }
  return job;
}

}  // namespace tandem
