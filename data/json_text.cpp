#include "data/json_text.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <utility>

#include "core/json_lines.h"

namespace tandem {
namespace {

void append_utf8(uint32_t c, std::string& out) {
  const auto put = [&](uint32_t byte) { out += static_cast<char>(byte); };
  if (c < 0x80) {
    put(c);
  } else if (c < 0x800) {
    put(0xC0 | c >> 6);
    put(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    put(0xE0 | c >> 12);
    put(0x80 | (c >> 6 & 0x3F));
    put(0x80 | (c & 0x3F));
  } else {
    put(0xF0 | c >> 18);
    put(0x80 | (c >> 12 & 0x3F));
    put(0x80 | (c >> 6 & 0x3F));
    put(0x80 | (c & 0x3F));
  }
}

/// Four hex digits behind "\u" at `at`, which moves behind them.
bool read_hex(std::string_view text, size_t& at, uint32_t& value) {
  const std::string_view digits = text.substr(std::min(at, text.size()), 6);
  if (digits.size() < 6 || !digits.starts_with("\\u")) return false;
  at += 6;
  const auto [end, error] = std::from_chars(digits.data() + 2, digits.data() + 6, value, 16);
  return error == std::errc() && end == digits.data() + 6;
}

/// The string that stands between two quotes as `raw`; false when an escape is wrong.
bool unescape(std::string_view raw, std::string& out) {
  out.clear();
  for (size_t at = 0; at < raw.size();) {
    const size_t slash = std::min(raw.find('\\', at), raw.size());
    out.append(raw.substr(at, slash - at));
    at = slash;
    if (at == raw.size()) break;
    constexpr std::string_view kEscapes = "\"\\/bfnrt", kMeanings = "\"\\/\b\f\n\r\t";
    if (const size_t which = kEscapes.find(raw[at + 1]); which != kEscapes.npos) {
      out += kMeanings[which];
      at += 2;
      continue;
    }
    uint32_t c = 0, low = 0;
    if (!read_hex(raw, at, c)) return false;
    if (c >= 0xD800 && c < 0xE000) {  // half of a surrogate pair
      if (c >= 0xDC00 || !read_hex(raw, at, low) || low < 0xDC00 || low > 0xDFFF) return false;
      c = 0x10000 + ((c - 0xD800) << 10) + (low - 0xDC00);
    }
    append_utf8(c, out);
  }
  return true;
}

/// Walks over one JSON value. Each function reads what its name says and returns false for what is
/// wrong or just unusual (exponents, very long numbers, escapes in keys, many keys, deep nesting):
/// then the full parser decides.
class PlainJson {
 public:
  /// Texts with escapes are put into `storage`.
  PlainJson(std::string_view json, std::string& storage)
      : at_(json.data()), end_(at_ + json.size()), storage_(storage) {}

  /// An object with a string under the first of `keys` that it has, and nothing behind it.
  bool document(const std::vector<std::string>& keys, std::string_view& text) {
    keys_ = &keys;
    best_ = keys.size();
    skip_space();
    if (!take('{') || !object(1)) return false;
    skip_space();
    text = text_;
    return at_ == end_ && best_ < keys.size() && is_string_;
  }

 private:
  static constexpr int kDeepest = 32;
  static constexpr size_t kMostKeys = 32;
  static constexpr std::ptrdiff_t kLongestNumber = 16;

  bool object(int depth) {  // behind its brace
    std::array<std::string_view, kMostKeys> seen;
    size_t n = 0;
    if (skip_space(), take('}')) return true;
    do {
      std::string_view key;
      bool escaped = false;
      skip_space();
      if (!take('"') || !raw_string(key, escaped) || escaped || n == kMostKeys) return false;
      if (std::find(seen.begin(), seen.begin() + n, key) != seen.begin() + n) return false;
      seen[n++] = key;
      if (skip_space(), !take(':')) return false;
      skip_space();
      if (!(depth == 1 ? member(rank_of(key)) : value(depth))) return false;
      skip_space();
    } while (take(','));
    return take('}');
  }

  /// A value of the outermost object.
  bool member(size_t rank) {
    if (rank >= best_) return value(1);
    best_ = rank;
    is_string_ = take('"');
    return is_string_ ? string(storage_, text_) : value(1);
  }

  bool array(int depth) {
    if (skip_space(), take(']')) return true;
    do {
      if (skip_space(), !value(depth)) return false;
      skip_space();
    } while (take(','));
    return take(']');
  }

  bool value(int depth) {
    if (at_ == end_) return false;
    switch (*at_) {
      case '"': {
        std::string_view text;
        return ++at_, string(scratch_, text);
      }
      case '{':
        return ++at_, depth < kDeepest && object(depth + 1);
      case '[':
        return ++at_, depth < kDeepest && array(depth + 1);
      case 't':
        return word("true");
      case 'f':
        return word("false");
      case 'n':
        return word("null");
      default:
        return number();
    }
  }

  bool raw_string(std::string_view& raw, bool& escaped) {  // behind its first quote
    const char* begin = at_;
    escaped = false;
    for (; at_ != end_; ++at_) {
      const auto c = static_cast<unsigned char>(*at_);
      if (c == '"') {
        raw = {begin, static_cast<size_t>(at_ - begin)};
        return ++at_, true;
      }
      if (c < 0x20) return false;
      if (c == '\\') {
        escaped = true;
        if (++at_ == end_) return false;
      }
    }
    return false;
  }
  bool string(std::string& storage, std::string_view& text) {
    bool escaped = false;
    if (!raw_string(text, escaped)) return false;
    if (!escaped) return true;
    if (!unescape(text, storage)) return false;
    text = storage;
    return true;
  }

  bool number() {
    const char* begin = at_;
    take('-');
    if (!take('0') && !digits()) return false;
    if (take('.') && !digits()) return false;
    const bool exponent = at_ != end_ && (*at_ == 'e' || *at_ == 'E');
    return !exponent && at_ - begin <= kLongestNumber;
  }
  bool digits() {
    const char* begin = at_;
    while (at_ != end_ && *at_ >= '0' && *at_ <= '9') ++at_;
    return at_ != begin;
  }

  bool word(std::string_view expected) {
    if (!std::string_view(at_, static_cast<size_t>(end_ - at_)).starts_with(expected)) return false;
    at_ += expected.size();
    return true;
  }
  bool take(char c) {
    if (at_ == end_ || *at_ != c) return false;
    return ++at_, true;
  }
  void skip_space() {
    while (at_ != end_ && (*at_ == ' ' || *at_ == '\t' || *at_ == '\r' || *at_ == '\n')) ++at_;
  }
  size_t rank_of(std::string_view key) const {
    return static_cast<size_t>(std::find(keys_->begin(), keys_->end(), key) - keys_->begin());
  }

  const char* at_;
  const char* end_;
  std::string& storage_;
  std::string scratch_;  // of strings that are not the text
  const std::vector<std::string>* keys_ = nullptr;
  size_t best_ = 0;  // rank of the key that text_ was found under
  bool is_string_ = false;
  std::string_view text_;
};

/// The text by the full parser, which knows all rules and names the broken one.
std::string parsed_text(std::string_view line, const std::vector<std::string>& keys) {
  auto value = parse_json(line);
  if (!value.is_object()) throw std::runtime_error("expected a JSON object");
  std::string names;
  for (const std::string& key : keys) {
    const std::string name = json_string(key);
    const auto found = value.find(key);
    if (found != value.end()) {
      if (!found->is_string()) throw std::runtime_error(name + " is not a string");
      return std::move(found->get_ref<std::string&>());
    }
    names += (names.empty() ? "" : " or ") + name;
  }
  throw std::runtime_error("no key " + names);
}

}  // namespace

std::string_view JsonText::of(std::string_view line) {
  std::string_view text;
  if (PlainJson(line, text_).document(keys_, text)) return text;
  return text_ = parsed_text(line, keys_);
}

}  // namespace tandem
