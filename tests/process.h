#pragma once
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>

#include <chrono>
#include <optional>
#include <string>
#include <thread>
#include <vector>

extern char** environ;

namespace tandem {

/// A program in a process of its own, killed at the latest by the destructor.
class Process {
 public:
  /// `words`: the program's path and its arguments. Its standard error goes to a file.
  Process(std::vector<std::string> words, const std::string& stderr_path) {
    std::vector<char*> argv;
    for (auto& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 2, stderr_path.c_str(), O_WRONLY | O_CREAT | O_TRUNC,
                                     0666);
    if (posix_spawn(&pid_, argv[0], &actions, nullptr, argv.data(), environ) != 0) pid_ = -1;
    posix_spawn_file_actions_destroy(&actions);
  }
  ~Process() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  Process(const Process&) = delete;

  /// Does nothing when it was seen to have ended.
  void send(int signal) const {
    if (pid_ > 0) ::kill(pid_, signal);
  }
  /// Exit code, or 128 + the signal that ended it; none while it runs.
  std::optional<int> ended() {
    int status = 0;
    if (pid_ > 0 && ::waitpid(pid_, &status, WNOHANG) == pid_) {
      pid_ = -1;
      code_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    }
    return code_;
  }
  /// As ended(), or -1 when it could not be started or takes longer than this.
  int wait(std::chrono::seconds longest = std::chrono::seconds(120)) {
    using Clock = std::chrono::steady_clock;
    for (const auto begin = Clock::now(); Clock::now() - begin < longest;) {
      if (const auto code = ended()) return *code;
      if (pid_ <= 0) break;
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    return -1;
  }

 private:
  pid_t pid_ = -1;
  std::optional<int> code_;
};

}  // namespace tandem
