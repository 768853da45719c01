#pragma once
#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "comm/connection.h"

namespace tandem {

struct GatherOptions {
  int64_t rank = 0, world = 1;
  std::string address = "127.0.0.1";  // of rank 0
  double heartbeat_seconds = 60;      // a rank that is silent for so long is lost
  double connect_seconds = 300;       // for all ranks to come
};

/// A store that all ranks of the run reach and nobody else.
struct Rendezvous {
  std::function<void(const std::string& key, const std::string& value)> publish;
  std::function<std::string(const std::string& key, double seconds)> lookup;  // waits for the value, and throws without it
};

/// The other end of a connection between two ranks.
struct Peer {
  int64_t rank = 0, pid = 0;
  std::string host;
  Connection connection;
  Activity activity{};
  std::chrono::steady_clock::time_point last_heard{};
  bool left = false;            // with a goodbye
  std::vector<Message> unread{};  // came together with Start
  bool open() const { return !connection.closed(); }
  LostRank loss(const std::string& how, const std::string& reason = "") const {
    return {rank, pid, host, how, reason, activity};
  }
};

/// Rank 0 listens, publishes its port and a random token, and waits until every other rank said hello with it; gives all of them. The others find it and give rank 0.
/// Whoever connects without the token is cut off within kStrangerSeconds, and no more than kMostStrangers are held at a time; nobody can connect afterwards.
/// Throws UserError as Liveness does.
std::vector<Peer> gather_ranks(const GatherOptions& options, const Rendezvous& rendezvous);

constexpr double kStrangerSeconds = 5;
constexpr size_t kMostStrangers = 64;

std::string host_name();

}  // namespace tandem
