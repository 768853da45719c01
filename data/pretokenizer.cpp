#include "data/pretokenizer.h"

#include <stdexcept>

#include "data/unicode.h"

namespace tandem {
namespace {

struct Spelling {
  std::string_view regex;
  SplitPattern pattern;
};

// The plain spelling of each pattern, then the others. Left out on purpose is that of tiktoken 0.14
// for cl100k,
//   '(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+|
//   ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s
// since what it means depends on the engine and the vocabulary. Onigmo, which Hugging Face uses,
// reads {1,3}+ as "once or more", so that digits are not cut in threes; and \s++$ keeps blanks
// behind the last newline of the text with it. For cl100k's own vocabulary the latter gives the ids
// of kCl100k, as none of its tokens of white space goes on behind a newline without ending in one.
constexpr Spelling kSpellings[] = {
    {R"('(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)",
     SplitPattern::kGpt2},
    {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
     SplitPattern::kCl100k},  // Llama-3 too
    {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
     SplitPattern::kQwen},
    {R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)",
     SplitPattern::kGpt2},  // ByteLevel of Hugging Face
    {R"('s|'t|'re|'ve|'m|'ll|'d| ?[\p{L}]+| ?[\p{N}]+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)",
     SplitPattern::kGpt2},  // GPT-2's release
    {R"('(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s)",
     SplitPattern::kGpt2},  // tiktoken 0.14
    {R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+)",
     SplitPattern::kCl100k},  // tiktoken 0.5
};

/// Classes of the characters of a text, by the byte they begin at.
class Scanner {
 public:
  explicit Scanner(std::string_view text) : text_(text), classes_(CharClasses::table()) {}

  size_t end() const { return text_.size(); }
  bool is(size_t at, char byte) const { return at < end() && text_[at] == byte; }
  bool is_newline(size_t at) const { return is(at, '\n') || is(at, '\r'); }
  /// The same letter in either case; `lower` is one of a-z.
  bool is_letter(size_t at, char lower) const { return at < end() && (text_[at] | 0x20) == lower; }
  bool is_text(size_t at, std::string_view what) const {
    return text_.substr(at).starts_with(what);
  }

  CharClass class_at(size_t at, size_t* bytes) const {
    const auto byte = static_cast<unsigned char>(text_[at]);
    *bytes = 1;
    if (byte < 0x80) return classes_.ascii(byte);
    const Character character = next_character(text_.substr(at));
    *bytes = character.bytes;
    return classes_[character.code];
  }
  bool is(size_t at, CharClass wanted) const {
    size_t bytes;
    return at < end() && class_at(at, &bytes) == wanted;
  }
  /// Where the run of `wanted` that begins at `at` ends, after `at_most` characters at the latest.
  size_t skip(size_t at, CharClass wanted, size_t at_most = static_cast<size_t>(-1)) const {
    for (size_t bytes; at_most > 0 && at < end() && class_at(at, &bytes) == wanted; --at_most)
      at += bytes;
    return at;
  }

 private:
  std::string_view text_;
  const CharClasses& classes_;
};

/// '(?:[sdmt]|ll|ve|re), or 0.
size_t contraction(const Scanner& text) {
  if (!text.is(0, '\'')) return 0;
  if (text.is(1, 's') || text.is(1, 't') || text.is(1, 'm') || text.is(1, 'd')) return 2;
  return text.is_text(1, "ll") || text.is_text(1, "ve") || text.is_text(1, "re") ? 3 : 0;
}

/// '(?i:[sdmt]|ll|ve|re), or 0. Unicode's case folding takes U+017F, the long s, for an s too.
size_t contraction_of_any_case(const Scanner& text) {
  if (!text.is(0, '\'')) return 0;
  for (const char letter : {'s', 't', 'm', 'd'})
    if (text.is_letter(1, letter)) return 2;
  constexpr std::string_view kLongS = "\xC5\xBF";
  if (text.is_text(1, kLongS)) return 1 + kLongS.size();
  for (const char* pair : {"ll", "ve", "re"})
    if (text.is_letter(1, pair[0]) && text.is_letter(2, pair[1])) return 3;
  return 0;
}

/// \s+(?!\S)|\s+ for a run of white space: the whole of it at the end of the text, else all but its
/// last character, which is left to what comes next; but never nothing.
/// With `newlines` first \s*[\r\n]+, which ends behind the last newline of the run.
size_t white_space(const Scanner& text, bool newlines) {
  size_t at = 0, last = 0, behind_newline = 0;
  for (size_t bytes; at < text.end() && text.class_at(at, &bytes) == CharClass::kSpace;) {
    last = at;
    at += bytes;
    if (text.is_newline(last)) behind_newline = at;
  }
  if (newlines && behind_newline > 0) return behind_newline;
  return at == text.end() || last == 0 ? at : last;
}

size_t gpt2_length(const Scanner& text) {
  if (const size_t bytes = contraction(text)) return bytes;
  const size_t begin = text.is(0, ' ') ? 1 : 0;  // " ?"
  size_t bytes;
  if (begin < text.end()) {
    const CharClass first = text.class_at(begin, &bytes);
    if (first != CharClass::kSpace) return text.skip(begin + bytes, first);
  }
  return white_space(text, /*newlines=*/false);
}

size_t cl100k_length(const Scanner& text, size_t digits) {
  if (const size_t bytes = contraction_of_any_case(text)) return bytes;
  size_t bytes;
  const CharClass first = text.class_at(0, &bytes);
  if (first == CharClass::kLetter) return text.skip(bytes, CharClass::kLetter);
  if (first == CharClass::kNumber) return text.skip(0, CharClass::kNumber, digits);
  if (!text.is_newline(0) && text.is(bytes, CharClass::kLetter))  // [^\r\n\p{L}\p{N}]?\p{L}+
    return text.skip(bytes, CharClass::kLetter);
  if (first == CharClass::kOther || (text.is(0, ' ') && text.is(1, CharClass::kOther))) {
    size_t at = text.skip(bytes, CharClass::kOther);  // ?[^\s\p{L}\p{N}]+[\r\n]*
    while (text.is_newline(at)) ++at;
    return at;
  }
  return white_space(text, /*newlines=*/true);
}

}  // namespace

std::optional<SplitPattern> pattern_of_regex(std::string_view regex) {
  for (const Spelling& spelling : kSpellings)
    if (spelling.regex == regex) return spelling.pattern;
  return std::nullopt;
}

const char* regex_of(SplitPattern pattern) {
  for (const Spelling& spelling : kSpellings)
    if (spelling.pattern == pattern) return spelling.regex.data();
  throw std::logic_error("regex_of: unknown pattern");
}

size_t pretoken_length(SplitPattern pattern, std::string_view text) {
  if (text.empty()) throw std::logic_error("pretoken_length: empty text");
  const Scanner scanner(text);
  switch (pattern) {
    case SplitPattern::kGpt2:
      return gpt2_length(scanner);
    case SplitPattern::kCl100k:
      return cl100k_length(scanner, /*digits=*/3);
    case SplitPattern::kQwen:
      return cl100k_length(scanner, /*digits=*/1);
  }
  throw std::logic_error("pretoken_length: unknown pattern");
}

}  // namespace tandem
