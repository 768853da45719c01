#include "core/log.h"

#include <cmath>
#include <cstdio>
#include <ctime>
#include <mutex>
#include <optional>

#include "core/error.h"
#include "core/file.h"

namespace tandem {
namespace {

struct Log {
  std::mutex mutex;
  std::optional<File> file;
  bool quiet = false;
};
Log& the_log() {
  static Log log;
  return log;
}

/// "2026-11-21 14:05:09Z ", in UTC, so that the logs of several machines line up.
std::string timestamp() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%d %H:%M:%SZ ", &parts);
  return text;
}

void to_stderr(const std::string& line) { std::fwrite(line.data(), 1, line.size(), stderr); }

std::string formatted(const char* format, double value, const char* unit) {
  char text[64];
  std::snprintf(text, sizeof text, format, value, unit);
  return text;
}

}  // namespace

void log_line(std::string_view text) {
  const std::string line = std::string(text) + "\n";
  Log& log = the_log();
  const std::lock_guard lock(log.mutex);
  if (!log.quiet) to_stderr(line);
  if (!log.file) return;
  try {
    log.file->write(timestamp() + line);
  } catch (const UserError& error) {  // a full disk must not end a run only because of its log
    log.file.reset();
    to_stderr(std::string("warning: ") + error.what() + "; from here on nothing is logged there\n");
  }
}

void log_warning(std::string_view text) { log_line("warning: " + std::string(text)); }

void set_log_file(const std::string& path) {
  Log& log = the_log();
  const std::lock_guard lock(log.mutex);
  log.file.reset();
  if (!path.empty()) log.file = File::open_append(path);
}

void set_log_quiet(bool quiet) {
  Log& log = the_log();
  const std::lock_guard lock(log.mutex);
  log.quiet = quiet;
}

std::string with_commas(long long n) {
  std::string digits = std::to_string(n);
  const size_t first = n < 0 ? 1 : 0;
  for (size_t at = digits.size(); at > first + 3;) digits.insert(at -= 3, 1, ',');
  return digits;
}

std::string human_bytes(double bytes) {
  static const char* kUnits[] = {"KiB", "MiB", "GiB", "TiB", "PiB"};
  if (std::abs(bytes) < 1024) return formatted("%.0f %s", bytes, "B");
  size_t unit = 0;
  double value = bytes / 1024;
  // 1023.995 would be printed as 1024.00
  for (; std::abs(value) >= 1023.995 && unit + 1 < std::size(kUnits); ++unit) value /= 1024;
  return formatted("%.2f %s", value, kUnits[unit]);
}

std::string human_duration(double seconds) {
  if (!(seconds >= 0 && seconds < 1e12)) return "unknown";
  const auto total = static_cast<long long>(std::llround(seconds));
  const auto two_digits = [](long long n) { return (n < 10 ? "0" : "") + std::to_string(n); };
  const long long minutes = total / 60, hours = minutes / 60, days = hours / 24;
  if (days > 0) return std::to_string(days) + " d " + two_digits(hours % 24) + " h";
  if (hours > 0) return std::to_string(hours) + " h " + two_digits(minutes % 60) + " min";
  if (minutes > 0) return std::to_string(minutes) + " min " + two_digits(total % 60) + " s";
  return std::to_string(total) + " s";
}

}  // namespace tandem
