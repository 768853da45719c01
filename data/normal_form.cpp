// Most characters are stable: no composition ever changes one or joins it to what stands before it.
// So text can be cut before each of them, and only the pieces around the others need work.
#include "data/normal_form.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstddef>
#include <stdexcept>
#include <vector>

namespace tandem {
namespace {

constexpr utf8proc_int32_t kFirstUnstable = 0x300;  // the first combining mark
constexpr unsigned char kFirstUnstableLead = 0xCC;  // its first byte
constexpr utf8proc_int32_t kTableEnd = 0x30000;     // planes 0 to 2 hold all that changes today
constexpr auto kOptions = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE);

using Characters = std::vector<utf8proc_int32_t>;

void append_decomposed(utf8proc_int32_t character, Characters& out) {
  utf8proc_int32_t parts[8];  // a canonical decomposition has at most four
  int bound_class = 0;
  const auto n =
      utf8proc_decompose_char(character, parts, std::size(parts), kOptions, &bound_class);
  if (n < 0 || n > static_cast<utf8proc_ssize_t>(std::size(parts))) {
    throw std::logic_error("utf8proc cannot decompose a character");
  }
  out.insert(out.end(), parts, parts + n);
}

void compose(Characters& characters) {
  const auto n = utf8proc_normalize_utf32(
      characters.data(), static_cast<utf8proc_ssize_t>(characters.size()), kOptions);
  if (n < 0) throw std::logic_error("utf8proc cannot compose");
  characters.resize(static_cast<size_t>(n));
}

/// Of each character below kTableEnd. A character is unstable when it has a combining class, is not
/// what its decomposition composes to, or comes behind another one in a composition.
std::vector<bool> find_stable() {
  std::vector<bool> stable(kTableEnd, true);
  // Hangul composes by arithmetic: vowels and final consonants join what is before them.
  std::fill(stable.begin() + 0x1161, stable.begin() + 0x1176, false);
  std::fill(stable.begin() + 0x11A8, stable.begin() + 0x11C3, false);
  for (utf8proc_int32_t c = 0; c < kTableEnd; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;  // surrogates
    if (c >= 0xAC00 && c < 0xD7A4) continue;  // Hangul syllables
    if (utf8proc_get_property(c)->combining_class != 0) stable[c] = false;
    Characters parts;
    append_decomposed(c, parts);
    if (parts.size() == 1 && parts[0] == c) continue;
    Characters whole = parts;
    compose(whole);
    if (whole.size() != 1 || whole[0] != c) stable[c] = false;
    for (size_t i = 1; i < parts.size(); ++i) stable[parts[i]] = false;
  }
  return stable;
}

bool is_stable(utf8proc_int32_t character) {
  static const std::vector<bool> stable = find_stable();
  return character < kFirstUnstable || (character < kTableEnd && stable[character]);
}

/// The character at the front of `text`; its bytes are taken off.
utf8proc_int32_t take(std::string_view& text) {
  utf8proc_int32_t character = 0;
  const auto n = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                                  static_cast<utf8proc_ssize_t>(text.size()), &character);
  if (n <= 0) throw std::logic_error("normal form of text that is not UTF-8");
  text.remove_prefix(static_cast<size_t>(n));
  return character;
}

void append_normal(std::string_view text, std::string& out) {
  Characters characters;
  while (!text.empty()) append_decomposed(take(text), characters);
  // utf8proc orders marks by exchanging neighbours, which long runs of them make slow.
  const auto mark = [](utf8proc_int32_t c) { return utf8proc_get_property(c)->combining_class; };
  for (auto at = characters.begin(); at != characters.end();) {
    at = std::find_if(at, characters.end(), [&](auto c) { return mark(c) != 0; });
    const auto end = std::find_if(at, characters.end(), [&](auto c) { return mark(c) == 0; });
    std::stable_sort(at, end, [&](auto a, auto b) { return mark(a) < mark(b); });
    at = end;
  }
  compose(characters);
  for (const utf8proc_int32_t c : characters) {
    utf8proc_uint8_t bytes[4];
    out.append(reinterpret_cast<const char*>(bytes),
               static_cast<size_t>(utf8proc_encode_char(c, bytes)));
  }
}

/// Bytes up to the first unstable character, and `last_stable`, the place of the character before.
size_t stable_bytes(std::string_view text, size_t* last_stable) {
  for (size_t at = 0; at < text.size();) {
    const auto lead = static_cast<unsigned char>(text[at]);
    size_t length = lead < 0x80 ? 1 : 2;
    if (lead >= kFirstUnstableLead) {
      std::string_view rest = text.substr(at);
      if (!is_stable(take(rest))) return at;
      length = text.size() - at - rest.size();
    }
    *last_stable = at;
    at += length;
  }
  return text.size();
}

}  // namespace

bool may_change_in_nfc(std::string_view text) {
  size_t last_stable = 0;
  return stable_bytes(text, &last_stable) < text.size();
}

std::string nfc(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    size_t begin = 0;
    const size_t unstable = stable_bytes(text, &begin);
    if (unstable == text.size()) return out.append(text);
    out.append(text.substr(0, begin));
    std::string_view rest = text.substr(unstable);
    size_t end = unstable;  // of the unstable characters
    while (!rest.empty() && !is_stable(take(rest))) end = text.size() - rest.size();
    append_normal(text.substr(begin, end - begin), out);
    text.remove_prefix(end);
  }
  return out;
}

}  // namespace tandem
