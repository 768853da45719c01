#pragma once
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/file.h"
#include "tests/data/temp_folder.h"
#include "tests/process.h"

// Ranks as processes: the test's own binary starts itself again, once for each rank, with the environment that torchrun would set. What a rank does is a function with
// a name, registered by RANK_BODY; the test starts it with Ranks.

namespace tandem {

using RankBody = std::function<int()>;  // returns the exit code
inline std::map<std::string, RankBody>& rank_bodies() {
  static std::map<std::string, RankBody> bodies;
  return bodies;
}
inline bool register_rank_body(const std::string& name, RankBody body) { return rank_bodies().emplace(name, std::move(body)).second; }

/// A port of loopback that nobody listened on a moment ago.
inline int free_port() {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address);
  socklen_t size = sizeof address;
  getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size);
  close(fd);
  return ntohs(address.sin_port);
}

/// Sets variables for as long as it lives: processes that are started meanwhile have them.
class WithEnvironment {
 public:
  explicit WithEnvironment(const std::map<std::string, std::string>& variables) : variables_(variables) {
    for (const auto& [name, value] : variables_) setenv(name.c_str(), value.c_str(), 1);
  }
  ~WithEnvironment() {
    for (const auto& [name, value] : variables_) unsetenv(name.c_str());
  }

 private:
  std::map<std::string, std::string> variables_;
};

/// The environment of one rank as torchrun sets it.
inline std::map<std::string, std::string> rank_environment(int64_t rank, int64_t world, int port) {
  return {{"RANK", std::to_string(rank)},       {"WORLD_SIZE", std::to_string(world)},       {"LOCAL_RANK", std::to_string(rank)},
          {"LOCAL_WORLD_SIZE", std::to_string(world)}, {"MASTER_ADDR", "127.0.0.1"}, {"MASTER_PORT", std::to_string(port)}};
}

/// `world` processes that run `body`.
class Ranks {
 public:
  Ranks(const std::string& body, int64_t world, const std::map<std::string, std::string>& more = {}, int port = free_port()) {
    for (int64_t r = 0; r < world; ++r) {
      auto variables = rank_environment(r, world, port);
      variables.insert(more.begin(), more.end());
      variables["TANDEM_RANK_BODY"] = body;
      const WithEnvironment environment(variables);
      processes_.push_back(std::make_unique<Process>(std::vector<std::string>{"/proc/self/exe", "--gtest_filter=RankBody.Runs"}, error_file(r)));
    }
  }
  Process& operator[](int64_t rank) { return *processes_[static_cast<size_t>(rank)]; }
  /// Exit codes of all, in their order; -1 of one that takes longer than this.
  std::vector<int> wait(std::chrono::seconds longest = std::chrono::seconds(60)) {
    std::vector<int> codes;
    for (auto& process : processes_) codes.push_back(process->wait(longest));
    return codes;
  }
  /// What a rank wrote to its standard error.
  std::string errors(int64_t rank) const { return read_text(error_file(rank)); }
  const TempFolder& folder() const { return folder_; }

 private:
  std::string error_file(int64_t rank) const { return folder_ / ("rank-" + std::to_string(rank)); }
  TempFolder folder_;
  std::vector<std::unique_ptr<Process>> processes_;
};

/// Fails the calling rank's process, with a line on its standard error.
#define RANK_CHECK(condition)                                                                 \
  if (!(condition)) {                                                                         \
    std::fprintf(stderr, "%s:%d: %s does not hold\n", __FILE__, __LINE__, #condition);        \
    return 1;                                                                                 \
  }

}  // namespace tandem
