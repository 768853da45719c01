#pragma once
#include <cstddef>
#include <optional>
#include <string_view>

namespace tandem {

/// How text is cut into pre-tokens, none of which a token spans. Each is a published regular expression, written out as a scanner here (tests hold it against PCRE2),
/// since lookahead and Unicode classes make general engines slow.
enum class SplitPattern {
  kGpt2,    // '(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+     GPT-2, r50k, p50k, GPT-NeoX, Pythia
  kCl100k,  // (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+     cl100k, Llama-3
  kQwen,    // the same with \p{N} for \p{N}{1,3}
};

/// The pattern that `regex` spells, in any of its published spellings (possessive or not, alternatives of contractions in any published order); nothing for one that is not
/// known, which must be refused and never guessed.
std::optional<SplitPattern> pattern_of_regex(std::string_view regex);
/// Its plain spelling, as above: for messages, and what the tests give to PCRE2.
const char* regex_of(SplitPattern pattern);

/// Bytes of the pre-token at the front of `text`, which is valid UTF-8, not empty, and goes on to the end of what is encoded (the patterns look ahead).
/// At least 1: every byte belongs to one pre-token. Unicode classes are those of utf8proc.
size_t pretoken_length(SplitPattern pattern, std::string_view text);

}  // namespace tandem
