#pragma once
#include <memory>
#include <string>

#include "data/tokenizer.h"

namespace tandem {

/// A sentencepiece model (unigram or BPE), read by libsentencepiece alone. Control pieces are its special tokens: they are matched in text by Specials::kAsIds only.
/// Throws bad_file for a missing or damaged model.
std::unique_ptr<Tokenizer> load_sentencepiece(const std::string& path);

}  // namespace tandem
