#pragma once
#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

namespace tandem {

/// A program in a process, and a process group, of its own: Ctrl-C on the terminal reaches it only
/// through send(). It reads nothing; what it prints is appended to a file.
class ChildProcess {
 public:
  /// `words`: the program, looked up in PATH where it has no slash, and its arguments. Throws
  /// bad_usage where it cannot be started, cannot_write for the file.
  ChildProcess(std::vector<std::string> words, const std::string& output_path);
  ~ChildProcess();  ///< kills its group and awaits it where it still runs
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  void send(int signal) const;  ///< to the program alone; nothing once it was seen to have ended
  /// Exit code, or 128 + the signal that ended it; none while it runs.
  std::optional<int> ended();

 private:
  pid_t pid_ = -1;  // while it runs
  std::optional<int> code_;
};

/// The file of the program that this process runs.
std::string own_program();

}  // namespace tandem
