#pragma once
#include <optional>
#include <string>

#include "data/token_file.h"
#include "eval/registry.h"
#include "nn/score.h"

namespace tandem {

/// `tandem eval nll`: the loss of a token file's text under a model.
struct NllConfig {
  std::string data = "";                       // token file
  std::optional<std::string> data_dtype = {};  // uint16 | uint32: it and `unigram` are headerless
  // ends the documents of headerless files and packed chunks
  std::optional<int64_t> eos_id = {};
  // tokens of one window; absent: as trained, or as many of them as the model has positions for
  std::optional<int64_t> context_length = {};
  std::optional<int64_t> stride = {};          // between the starts of windows; absent: the window
  std::optional<int64_t> max_tokens = {};      // scored from the start of the data; absent: all
  int64_t skip = 0;                            // first targets of each window that are left out
  int64_t chunk = 0;                           // tokens of a piece of a window; 0 = whole windows
  std::string cache_dtype = "same";  // of keys and values, with chunk: same | float32 | bfloat16
  // tokens see their document only; absent: as trained, but not for a model of blocks
  std::optional<bool> mask_documents = {};
  int64_t buckets = 16;                     // of the loss by position
  std::string unigram = "";                 // token file of a baseline's counts; empty: none
  template <typename Visitor>
  void fields(Visitor& visit) {
    visit.value("data", data);
    visit.optional("data_dtype", data_dtype);
    visit.optional("eos_id", eos_id, at_least(0));
    visit.optional("context_length", context_length, at_least(1));
    visit.optional("stride", stride, at_least(1));
    visit.optional("max_tokens", max_tokens, at_least(1));
    visit.value("skip", skip, at_least(0));
    visit.value("chunk", chunk, at_least(0));
    visit.one_of("cache_dtype", cache_dtype, {"bfloat16", "float32", "same"});
    visit.optional("mask_documents", mask_documents);
    visit.value("buckets", buckets, at_least(1));
    visit.value("unigram", unigram);
  }
};

/// Windows over the first `tokens` tokens of a file, one every `stride` tokens: window k has the
/// inputs [k * stride, k * stride + length) and, one on, as many targets. The first window scores
/// all of its targets, each later one those that no window before it scored, so that every token
/// but the first is scored once, as far as `skip` and a model's unscored prefix let it. Rows are
/// laid out by a model's Packing; padding counts in none of these numbers. Documents are masked for
/// models without blocks only.
struct NllWindows {
  std::shared_ptr<const TokenFile> file;
  int64_t tokens = 0, length = 0, stride = 0;
  int64_t skip = 0;
  bool mask_documents = false;
  int64_t count() const;
  Row row(int64_t k, const Packing& packing) const;
};

/// NLL of tokens under their frequencies in `file`, each counted once more than it occurs:
/// [vocab_size]. Throws bad_file for a token outside the vocabulary.
std::vector<double> unigram_nll(const TokenFile& file, int64_t vocab_size);

extern const char* const kNllHelp;
EvalTable run_nll(const NllConfig& config, const EvalArgs& args);

}  // namespace tandem
