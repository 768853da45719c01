#pragma once
#include <memory>
#include <string>

#include "data/tokenizer.h"

namespace sentencepiece::util {
class Status;
}  // namespace sentencepiece::util

namespace tandem {

/// A sentencepiece model (unigram or BPE), read by libsentencepiece alone. Control pieces are its special tokens: they are matched in text by Specials::kAsIds only.
/// Ids are the library's, but for models of `tandem data train-tokenizer`, told by their settings (data/model_check.h), where text holds "\u2581" (U+2581) itself: the library
/// would give its pieces for spaces, and decode to a space; here it is spelled in three bytes, so that these models keep all text. Other models give the library's ids there too.
/// Throws bad_file for a missing or damaged model.
std::unique_ptr<Tokenizer> load_sentencepiece(const std::string& path);

/// The library's words for what went wrong, in one line and without the place in its source.
std::string reason_of(const sentencepiece::util::Status& status);

}  // namespace tandem
