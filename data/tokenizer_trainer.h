#pragma once
#include <cstdint>
#include <string>

#include "data/documents.h"

namespace tandem {

struct TokenizerTraining {
  int64_t vocab_size = 8192;
  std::string model = "bpe";       // bpe | unigram
  int64_t max_sentences = 1'000'000;  // lines taken for training; sampled when the text has more
  int64_t threads = 2;
};

/// Learns a sentencepiece vocabulary (byte fallback, digits apart, nothing normalised away, ids: unk 0, bos 1, eos 2) from the documents below `path` and writes
/// `output` atomically. Throws bad_usage when the text is too small for vocab_size, naming the largest that fits, bad_file for too many bad lines (check_bad_lines).
DocumentCounts train_tokenizer(const std::string& path, const DocumentOptions& documents, const TokenizerTraining& options, double max_bad_lines, const std::string& output);

}  // namespace tandem
