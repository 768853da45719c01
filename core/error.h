#pragma once
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>

namespace tandem {

/// Exit codes of the program. 130 and 143 (stopped by a signal after saving) are set where signals are handled.
enum ExitCode : int {
  kExitDone = 0,
  kExitInternal = 1,   // a bug in tandem
  kExitUsage = 2,      // wrong config or arguments, a refused resume, a run folder in use
  kExitStopped = 3,    // training stopped by its own policy, or a sweep with failed runs
  kExitBadFile = 66,   // a file that is missing, unreadable, damaged or of the wrong kind
  kExitCannotWrite = 74,
  kExitPeerLost = 75,
};

/// Something the user can fix. `main` prints what() as one line and leaves with exit_code().
class UserError : public std::runtime_error {
 public:
  UserError(int exit_code, const std::string& message) : std::runtime_error(message), exit_code_(exit_code) {}
  int exit_code() const { return exit_code_; }

 private:
  int exit_code_;
};

/// Where a value came from: a line of a file (`file:line`), or a word of the command line (line 0).
struct Origin {
  std::string file;
  int line = 0;
  std::string str() const;  ///< "configs/a.yaml:14", "command line"
};

/// `text` fit for a message: control characters escaped, cut with "..." after 120 bytes.
std::string one_line(std::string_view text);

/// `ORIGIN: KEY = VALUE, expected EXPECTED`, exit code 2. An origin without file, or an empty key, is left out.
UserError bad_value(const Origin& origin, std::string_view key, std::string_view value, std::string_view expected);

/// `ORIGIN: unknown key KEY; known here: a, b, c`, with `did you mean X?` first when one of `known` is close. Exit code 2.
/// `known` holds last components, sorted in the message.
UserError unknown_key(const Origin& origin, std::string_view key, std::span<const std::string> known);

/// `ORIGIN: MESSAGE`, exit code 2: for what the two above cannot say.
UserError bad_config(const Origin& origin, const std::string& message);

/// Wrong arguments, exit code 2.
UserError bad_usage(const std::string& message);
/// A file that is missing, unreadable, damaged or of the wrong kind: `PATH: WHAT`, exit code 66.
UserError bad_file(const std::string& path, const std::string& what);
/// A file that cannot be written: `PATH: WHAT`, exit code 74.
UserError cannot_write(const std::string& path, const std::string& what);

/// The entry of `known` nearest to `word` (edit distance at most a third of its length, at least 1), or empty.
std::string nearest(std::string_view word, std::span<const std::string> known);

}  // namespace tandem
