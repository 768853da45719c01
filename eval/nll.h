#pragma once
#include <optional>
#include <string>
#include <vector>

#include "eval/registry.h"

namespace tandem {

/// `tandem eval nll`: the loss of token files' text under a model.
struct NllConfig {
  std::vector<std::string> data = {};  // token files; of several there is a result each and of all
  std::optional<std::string> data_dtype = {};  // uint16 | uint32: all files are headerless
  // ends the documents of headerless files and packed chunks
  std::optional<int64_t> eos_id = {};
  std::string unit = "windows";            // windows | documents: what is scored by itself
  std::optional<int64_t> min_length = {};  // of documents that are scored (tokens)
  std::optional<int64_t> max_length = {};
  std::optional<int64_t> max_documents = {};  // the first so many; absent: all
  // tokens of one window or document, the rest is cut off; absent: as trained, or as many of them
  // as the model has positions for
  std::optional<int64_t> context_length = {};
  std::optional<int64_t> stride = {};      // between the starts of windows; absent: the window
  std::optional<int64_t> max_tokens = {};  // scored from the start of the data; absent: all
  int64_t skip = 0;                  // first targets of each window or document that are left out
  int64_t last = 0;                  // only so many at its end are scored; 0 = all
  std::string bos = "none";          // none | window: BOS in front of each window or document
  int64_t chunk = 0;                 // tokens of a piece; 0 = whole windows or documents
  std::string cache_dtype = "same";  // of keys and values, with chunk: same | float32 | bfloat16 | int8
  // tokens see their document only; absent: as trained, but not for a model of blocks
  std::optional<bool> mask_documents = {};
  int64_t buckets = 16;                    // of the loss by position
  std::string bucket_scale = "linear";     // linear | log
  std::string fit = "none";                // none | buckets | cumulative: a power law through it
  bool recall_split = false;               // see eval/recall_split.h
  std::string frequent_bigrams_from = "";  // token file of their counts; empty: none is frequent
  int64_t frequent_bigrams = 1250;         // a bigram that occurs more often there is frequent
  bool cost = false;                       // record seconds, state and resident memory
  std::string unigram = "";                // token file of a baseline's counts; empty: none
  template <typename Visitor>
  void fields(Visitor& visit) {
    visit.value("data", data);
    visit.optional("data_dtype", data_dtype);
    visit.optional("eos_id", eos_id, at_least(0));
    visit.one_of("unit", unit, {"documents", "windows"});
    visit.optional("min_length", min_length, at_least(1));
    visit.optional("max_length", max_length, at_least(1));
    visit.optional("max_documents", max_documents, at_least(1));
    visit.optional("context_length", context_length, at_least(1));
    visit.optional("stride", stride, at_least(1));
    visit.optional("max_tokens", max_tokens, at_least(1));
    visit.value("skip", skip, at_least(0));
    visit.value("last", last, at_least(0));
    visit.one_of("bos", bos, {"none", "window"});
    visit.value("chunk", chunk, at_least(0));
    visit.one_of("cache_dtype", cache_dtype, {"bfloat16", "float32", "int8", "same"});
    visit.optional("mask_documents", mask_documents);
    visit.value("buckets", buckets, at_least(1));
    visit.one_of("bucket_scale", bucket_scale, {"linear", "log"});
    visit.one_of("fit", fit, {"buckets", "cumulative", "none"});
    visit.value("recall_split", recall_split);
    visit.value("frequent_bigrams_from", frequent_bigrams_from);
    visit.value("frequent_bigrams", frequent_bigrams, at_least(0));
    visit.value("cost", cost);
    visit.value("unigram", unigram);
  }
};

extern const char* const kNllHelp;
/// Throws UserError for settings that do not go together, or with no model at all.
void check_nll(const NllConfig& config);
EvalTable run_nll(const NllConfig& config, const EvalArgs& args);

}  // namespace tandem
