#include "core/yaml_scalar.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <cmath>
#include <system_error>

namespace tandem {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_alnum(char c) { return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

/// sign, digits * 10^exponent: "-12.50e3" is -, "1250", 1.
struct Decimal {
  bool negative = false;
  std::string digits;  // without leading zeros; empty for zero
  int64_t exponent = 0;
};

/// Takes digits, with single underscores between them, off the front of `text`.
std::string take_digits(std::string_view& text) {
  std::string digits;
  while (!text.empty()) {
    const bool separator =
        text[0] == '_' && !digits.empty() && text.size() > 1 && is_digit(text[1]);
    if (!is_digit(text[0]) && !separator) break;
    if (!separator) digits += text[0];
    text.remove_prefix(1);
  }
  return digits;
}

std::optional<Decimal> parse_decimal(std::string_view text) {
  Decimal decimal;
  if (!text.empty() && (text[0] == '-' || text[0] == '+')) {
    decimal.negative = text[0] == '-';
    text.remove_prefix(1);
  }
  decimal.digits = take_digits(text);
  if (!text.empty() && text[0] == '.') {
    text.remove_prefix(1);
    const std::string fraction = take_digits(text);
    decimal.digits += fraction;
    decimal.exponent -= static_cast<int64_t>(fraction.size());
  }
  if (decimal.digits.empty()) return std::nullopt;
  if (!text.empty() && (text[0] == 'e' || text[0] == 'E')) {
    text.remove_prefix(1);
    if (text.size() > 1 && text[0] == '+' && is_digit(text[1])) text.remove_prefix(1);
    int exponent = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), exponent);
    if (error != std::errc{}) return std::nullopt;
    text.remove_prefix(static_cast<size_t>(end - text.data()));
    decimal.exponent += exponent;
  }
  if (!text.empty()) return std::nullopt;
  decimal.digits.erase(0, decimal.digits.find_first_not_of('0'));  // npos erases all: zero
  return decimal;
}

/// Can stand without quotes, in a flow list too: a number, a name, a path.
bool is_plain(std::string_view text) {
  const auto allowed = [](char c) {
    return is_alnum(c) || c == '_' || c == '-' || c == '.' || c == '/' || c == '+';
  };
  return std::any_of(text.begin(), text.end(), is_alnum) &&
         std::all_of(text.begin(), text.end(), allowed) && !text.starts_with("--") &&
         !text.starts_with("...");
}

std::string double_quoted(std::string_view text) {
  static constexpr char kHex[] = "0123456789abcdef";
  std::string out = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += {'\\', c};
    } else if (c == '\n') {
      out += "\\n";
    } else if (byte < 0x20 || byte == 0x7F) {
      out += {'\\', 'x', kHex[byte >> 4], kHex[byte & 15]};
    } else {
      out += c;
    }
  }
  return out + "\"";
}

}  // namespace

std::optional<int64_t> yaml_integer(std::string_view text) {
  auto decimal = parse_decimal(text);
  if (!decimal) return std::nullopt;
  auto& [negative, digits, exponent] = *decimal;
  if (digits.empty()) return 0;
  while (exponent < 0 && digits.back() == '0') {
    digits.pop_back();
    ++exponent;
  }
  if (exponent < 0 || exponent > 18)
    return std::nullopt;  // not integral; above 1e18 digits alone overflow
  const std::string whole =
      (negative ? "-" : "") + digits + std::string(static_cast<size_t>(exponent), '0');
  int64_t value = 0;
  const auto result = std::from_chars(whole.data(), whole.data() + whole.size(), value);
  if (result.ec != std::errc{}) return std::nullopt;
  return value;
}

std::optional<double> yaml_number(std::string_view text) {
  const auto decimal = parse_decimal(text);
  if (!decimal) return std::nullopt;
  if (decimal->digits.empty()) return decimal->negative ? -0.0 : 0.0;
  const std::string canonical =
      (decimal->negative ? "-" : "") + decimal->digits + "e" + std::to_string(decimal->exponent);
  double value = 0;
  const auto result = std::from_chars(canonical.data(), canonical.data() + canonical.size(), value);
  if (result.ec != std::errc{} || !std::isfinite(value) || value == 0) return std::nullopt;
  return value;
}

std::optional<bool> yaml_boolean(std::string_view text) {
  if (text == "true") return true;
  if (text == "false") return false;
  return std::nullopt;
}

std::string number_text(double value) {
  std::array<char, 32> buffer;
  const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value).ptr;
  std::string text(buffer.data(), end);
  const size_t e = text.find('e');
  if (e == std::string::npos || !std::isfinite(value)) return text;
  std::string exponent = text.substr(e + 1);  // "+06" or "-05"
  const std::string sign = exponent[0] == '-' ? "-" : "";
  exponent.erase(0, exponent.find_first_not_of("+-0"));
  return text.substr(0, e + 1) + sign + exponent;
}

bool looks_typed(std::string_view text) {
  if (text.empty() || text == "~") return true;
  if (!is_plain(text)) return false;
  const size_t start = text.find_first_not_of("+-.");
  if (start != std::string_view::npos && is_digit(text[start]))
    return true;  // numbers, dates, versions
  std::string lower(text.substr(start));
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](unsigned char c) { return std::tolower(c); });
  static constexpr std::array<std::string_view, 11> kWords = {
      "null", "true", "false", "yes", "no", "on", "off", "y", "n", "inf", "nan"};
  return std::find(kWords.begin(), kWords.end(), lower) != kWords.end();
}

std::string scalar_text(std::string_view text, bool is_string) {
  const bool plain = is_plain(text) && !(is_string && looks_typed(text));
  return plain ? std::string(text) : double_quoted(text);
}

}  // namespace tandem
