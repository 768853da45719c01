#include "core/error.h"

#include <algorithm>
#include <set>
#include <vector>

namespace tandem {
namespace {

constexpr size_t kLongestShown = 120;  // bytes of a value in a message

std::string joined(const std::set<std::string>& words) {
  std::string out;
  for (const auto& word : words) out += (out.empty() ? "" : ", ") + word;
  return out;
}

/// "a.yaml:14: ", or nothing for a value that was written nowhere.
std::string prefix(const Origin& origin) {
  const std::string where = origin.str();
  return where.empty() ? "" : where + ": ";
}

/// Letters to insert, delete, replace or swap with their neighbour to get from `a` to `b`.
size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::vector<size_t>> d(a.size() + 1, std::vector<size_t>(b.size() + 1));
  for (size_t i = 0; i <= a.size(); ++i) d[i][0] = i;
  for (size_t j = 0; j <= b.size(); ++j) d[0][j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t replaced = d[i - 1][j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      d[i][j] = std::min({replaced, d[i - 1][j] + 1, d[i][j - 1] + 1});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
      }
    }
  }
  return d[a.size()][b.size()];
}

}  // namespace

std::string Origin::str() const { return line > 0 ? file + ":" + std::to_string(line) : file; }

std::string one_line(std::string_view text) {
  const bool cut = text.size() > kLongestShown;
  if (cut) {
    size_t end = kLongestShown;
    while (end > 0 && (text[end] & 0xC0) == 0x80) --end;  // not inside a UTF-8 character
    text = text.substr(0, end);
  }
  static constexpr char kHex[] = "0123456789abcdef";
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '\n') {
      out += "\\n";
    } else if (byte < 0x20 || byte == 0x7F) {
      out += {'\\', 'x', kHex[byte >> 4], kHex[byte & 15]};
    } else {
      out += c;
    }
  }
  return cut ? out + "..." : out;
}

UserError bad_value(const Origin& origin, std::string_view key, std::string_view value,
                    std::string_view expected) {
  const std::string left = key.empty() ? "" : one_line(key) + " = ";
  return {kExitUsage,
          prefix(origin) + left + one_line(value) + ", expected " + std::string(expected)};
}

UserError unknown_key(const Origin& origin, std::string_view key,
                      std::span<const std::string> known) {
  const std::string near = nearest(key.substr(key.rfind('.') + 1), known);  // npos + 1 is 0
  std::string message = prefix(origin) + "unknown key " + one_line(key) + ";";
  if (!near.empty()) message += " did you mean " + near + "?";
  if (known.empty()) {
    message += " no key is known here";
  } else {
    message += " known here: " + joined({known.begin(), known.end()});
  }
  return {kExitUsage, message};
}

UserError bad_config(const Origin& origin, const std::string& message) {
  return {kExitUsage, prefix(origin) + message};
}

UserError bad_usage(const std::string& message) { return {kExitUsage, message}; }

UserError bad_file(const std::string& path, const std::string& what) {
  return {kExitBadFile, path + ": " + what};
}

UserError cannot_write(const std::string& path, const std::string& what) {
  return {kExitCannotWrite, path + ": " + what};
}

std::string nearest(std::string_view word, std::span<const std::string> known) {
  const size_t limit = std::max<size_t>(1, word.size() / 3);
  size_t best = limit + 1;
  std::string found;
  for (const auto& candidate : known) {
    const size_t longer = std::max(word.size(), candidate.size());
    const size_t shorter = std::min(word.size(), candidate.size());
    if (longer - shorter > limit) continue;  // also keeps the table small for absurdly long words
    const size_t distance = edit_distance(word, candidate);
    if (distance < best) {
      best = distance;
      found = candidate;
    }
  }
  return found;
}

}  // namespace tandem
