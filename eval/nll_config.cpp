#include "core/error.h"
#include "eval/nll.h"

namespace tandem {
namespace {

void require(bool holds, const std::string& message) {
  if (!holds) throw bad_usage(message);
}

void check_units(const NllConfig& config) {
  const auto no_effect = [](bool given, const char* flag, const char* unit) {
    require(!given, std::string(flag) + " has no effect with --unit " + unit);
  };
  if (config.unit == "documents") {
    no_effect(config.stride.has_value(), "--stride", "documents");
    no_effect(config.max_tokens.has_value(), "--max-tokens", "documents");
    no_effect(config.mask_documents.has_value(), "--mask-documents", "documents");
  } else {
    no_effect(config.min_length.has_value(), "--min-length", "windows");
    no_effect(config.max_length.has_value(), "--max-length", "windows");
    no_effect(config.max_documents.has_value(), "--max-documents", "windows");
  }
}

}  // namespace

const char* const kNllHelp =
    R"(--unit windows: windows of --context-length tokens (absent: what the model was trained with) are cut from the documents' stream every --stride
tokens (absent: the window). Every token but the first is scored once; with a smaller stride it has at least window - stride tokens before it.
--max-tokens scores the beginning of the data only. --unit documents: each document from its start on, alone, up to --context-length tokens;
--min-length and --max-length choose documents by their tokens, --max-documents takes the first so many.
--bos window puts BOS in front of each, so that its first token is scored too. --skip leaves out the first targets of each, --last scores only so many at
the end of each. --chunk scores in pieces through the model's state, with the same result in bounded memory (keys and values are held in
--cache-dtype: same as --dtype, float32, bfloat16 or int8); what precedes the first scored target then takes the early exit of prefill.
--buckets sets how finely the loss by position is kept, --bucket-scale linear or log how they grow; --fit buckets or cumulative puts
nll = a n^-b + c through the curve, with 95 % intervals over windows or documents drawn anew (--seed), and says when b cannot be separated.
--recall-split true gives the loss of targets whose bigram stands earlier in the window or document (ar_hit) and of the others (first_occurrence);
bigrams that occur more than --frequent-bigrams times in the token file --frequent-bigrams-from are kept apart (frequent).
--mask-documents says whether tokens see their own document only (absent: as trained, but false for a model of blocks, with --bos and with --chunk refused).
--unigram adds the baseline of token frequencies, --cost true the seconds and memory of each result. Several --data files, A,B,C, give a result each and one over all.
--data-dtype (uint16 or uint32) says that all token files are headerless, --eos-id which token ends the documents of
headerless files and packed chunks. A model of blocks that was trained without padding does not score the first block of a window; --skip makes others comparable with it.
Example: tandem eval nll runs/yoco runs/transformer --data data/valid --unigram data/train --out nll.jsonl
Example: tandem eval nll runs/yoco --data data/books --context-length 1048576 --chunk 4096 --last 4096 --bucket-scale log --cost true --out long.jsonl)";

void check_nll(const NllConfig& config) {
  require(!config.data.empty() && !config.data.front().empty(),
          "eval nll needs a token file to score, --data PREFIX");
  for (size_t i = 0; i < config.data.size(); ++i) {
    for (size_t j = 0; j < i; ++j)
      require(config.data[i] != config.data[j], "--data names " + config.data[i] + " twice");
  }
  require(config.cache_dtype == "same" || config.chunk > 0,
          "--cache-dtype " + config.cache_dtype +
              " has no effect without --chunk: whole windows hold no keys and values");
  check_units(config);
  require(config.frequent_bigrams_from.empty() || config.recall_split,
          "--frequent-bigrams-from has no effect without --recall-split true");
  require(config.bos == "none" || !config.mask_documents.value_or(false),
          "--bos window needs windows without document masks; give --mask-documents false");
}

}  // namespace tandem
