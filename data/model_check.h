#pragma once
#include <string>
#include <string_view>

namespace tandem {

/// What a sentencepiece model says of itself and its processor does not tell.
struct SentencePieceTraits {
  bool keeps_characters = false;  // no charsmap, spaces escaped: only " " and "\u2581" itself become "\u2581"
  bool from_train_tokenizer = false;  // has the settings of `tandem data train-tokenizer`, some of which no other trainer is likely to give: sentences of 4096 bytes, a soft vocabulary limit, no paths
};

/// Throws bad_file, naming place and rule, unless the bytes of a sentencepiece model meet what libsentencepiece relies on without looking: 0.2.1 reads beyond its tables where they do not.
///   pieces   at most 1,048,576, each of at most 1024 bytes of UTF-8 without NUL, with a finite score and a type it knows; at most 64 user-defined ones begin each other
///   charsmap (of the normalizer and the denormalizer) a trie whose every node lies inside it, with keys of at most 256 bytes, no more than 32 of which begin each other, and
///            values that are texts of at most 256 bytes
/// What the library checks itself is left to it.
SentencePieceTraits check_sentencepiece_model(std::string_view model, const std::string& path);

}  // namespace tandem
