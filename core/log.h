#pragma once
#include <string>
#include <string_view>

namespace tandem {

/// One line to standard error and, when a log file was given, to that file with a timestamp in front. Thread safe.
/// Results go to standard output by the commands themselves; the log is for people.
void log_line(std::string_view text);
void log_warning(std::string_view text);  ///< with "warning: " in front

/// Also writes every later line to `path` (appending) until the next call; "" stops that.
void set_log_file(const std::string& path);
/// Ranks other than 0 log to their file only.
void set_log_quiet(bool quiet);

std::string with_commas(long long n);        ///< 1234567 -> "1,234,567"
std::string human_bytes(double bytes);       ///< "1.02 GiB"
std::string human_duration(double seconds);  ///< "2 h 05 min", "3 min 20 s", "12 s"

}  // namespace tandem
