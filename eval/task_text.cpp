#include "eval/task_text.h"

#include <utf8proc.h>

#include "data/unicode.h"

namespace tandem {
namespace {

void append(std::string& text, utf8proc_int32_t code) {
  utf8proc_uint8_t bytes[4];
  const auto n = utf8proc_encode_char(code, bytes);
  text.append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(n));
}

size_t last_character(std::string_view text) {  // where it begins
  size_t at = text.size() - 1;
  while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80) --at;
  return at;
}

}  // namespace

bool is_space(char32_t code) {
  // White_Space and, with Python, the four separators of ASCII
  return CharClasses::table()[code] == CharClass::kSpace || (code >= 0x1C && code <= 0x1F);
}

size_t count_characters(std::string_view text) {
  size_t n = 0;
  for (const char byte : text) n += (static_cast<unsigned char>(byte) & 0xC0) != 0x80;
  return n;
}

std::string_view strip_left(std::string_view text) {
  while (!text.empty()) {
    const Character first = next_character(text);
    if (!is_space(first.code)) break;
    text.remove_prefix(first.bytes);
  }
  return text;
}

std::string_view strip_right(std::string_view text) {
  while (!text.empty()) {
    const size_t at = last_character(text);
    if (!is_space(next_character(text.substr(at)).code)) break;
    text.remove_suffix(text.size() - at);
  }
  return text;
}

std::string_view strip(std::string_view text) { return strip_right(strip_left(text)); }

std::vector<std::string> split(std::string_view text, std::string_view separator) {
  std::vector<std::string> pieces;
  size_t begin = 0;
  for (size_t at; (at = text.find(separator, begin)) != std::string_view::npos;
       begin = at + separator.size())
    pieces.emplace_back(text.substr(begin, at - begin));
  pieces.emplace_back(text.substr(begin));
  return pieces;
}

std::string replace_all(std::string_view text, std::string_view from, std::string_view to) {
  std::string result;
  size_t begin = 0;
  for (size_t at; (at = text.find(from, begin)) != std::string_view::npos;
       begin = at + from.size()) {
    result += text.substr(begin, at - begin);
    result += to;
  }
  return result += text.substr(begin);
}

std::string capitalize(std::string_view text) {
  std::string result;
  for (bool first = true; !text.empty(); first = false) {
    const Character character = next_character(text);
    const auto code = static_cast<utf8proc_int32_t>(character.code);
    text.remove_prefix(character.bytes);
    if (!first && code == 0x130)
      result += "i\xCC\x87";
    else
      append(result, first ? utf8proc_totitle(code) : utf8proc_tolower(code));
  }
  return result;
}

size_t count_words(std::string_view text) {
  size_t words = 1;
  bool in_space = false;
  while (!text.empty()) {
    const Character character = next_character(text);
    const bool space = is_space(character.code);
    words += space && !in_space;
    in_space = space;
    text.remove_prefix(character.bytes);
  }
  return words;
}

}  // namespace tandem
