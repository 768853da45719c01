#include "cli/output.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "core/error.h"

namespace tandem {
namespace {

// Characters, as far as UTF-8 and one column each go.
size_t width_of(const std::string& text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  }));
}

}  // namespace

void print(std::string_view text) {
  errno = 0;
  const bool written = std::fwrite(text.data(), 1, text.size(), stdout) == text.size();
  const bool flushed = std::fflush(stdout) == 0;
  const int reason = errno;
  // The stream also remembers what failed in an earlier printf.
  if (written && flushed && std::ferror(stdout) == 0) return;
  if (reason == EPIPE) throw ReaderLeft();
  throw cannot_write("standard output",
                     reason == 0 ? "not all of it was written" : std::strerror(reason));
}

std::string format_table(const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], width_of(row[i]));
  }
  std::string out;
  for (size_t r = 0; r < rows.size(); ++r) {
    std::string line;
    for (size_t i = 0; i < rows[r].size(); ++i) {
      const std::string padding(widths[i] - width_of(rows[r][i]), ' ');
      line += i == 0 ? rows[r][i] + padding : "  " + padding + rows[r][i];
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + "\n";
    if (r > 0) continue;
    for (size_t i = 0; i < widths.size(); ++i) {
      if (i > 0) out += "  ";
      for (size_t n = 0; n < widths[i]; ++n) out += "─";
    }
    out += "\n";
  }
  return out;
}

}  // namespace tandem
