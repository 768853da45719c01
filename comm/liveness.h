#pragma once
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "comm/gather_ranks.h"
#include "comm/liveness_message.h"

namespace tandem {

/// Watches the ranks of a run and ends this process when one of them is gone, so that the launcher starts the job again. A thread keeps a connection to rank 0 (on rank 0:
/// to all others) and sends what this rank is doing; the end of a connection means a dead process, silence a stopped one, and rank 0 tells all who it was. A rank that is
/// only slow, or waits in a collective, is not gone: its thread still answers. A loss is printed as one line, that of LostRank::line(), and the process leaves with kExitPeerLost
/// from the thread, whatever the others do. With a world of one nothing is watched.
class Liveness {
 public:
  /// Connects all ranks: each of them calls it. `print` gets the line on which the process leaves, in any thread. Throws UserError: kExitPeerLost where a rank does not come within
  /// the limit, on all ranks, naming those that did not, or is gone before all are there; kExitUsage where two processes are the same rank, or of different worlds.
  Liveness(const GatherOptions& options, const Rendezvous& rendezvous,
           std::function<void(const std::string& line)> print);
  /// Without goodbye() before, the others take this rank for lost.
  ~Liveness();
  Liveness(const Liveness&) = delete;

  /// What this rank is doing from here on; cheap. `operation` outlives this object.
  void report(int64_t step, const char* operation);
  /// This rank leaves by itself; call it last. No loss is seen afterwards. With kExitDone, kExitStopped, 130 or 143, on which all ranks agreed, the others go on to
  /// their own end; with any other code they leave with kExitPeerLost and name this rank, the code and `reason`.
  void goodbye(int exit_code, const std::string& reason = "");
  /// Which rank was lost, waiting `seconds` for it; the process is about to leave then.
  std::optional<LostRank> wait_for_verdict(double seconds);
  /// After a collective failed with `message` (PeerLost): leaves with kExitPeerLost, with the line that names the lost rank where that is known within a second, else with `message`.
  [[noreturn]] void leave(const std::string& message);

 private:
  using Clock = std::chrono::steady_clock;
  void watch();  // the thread, to its end
  void watch_until_goodbye();
  std::vector<Watched> watched() const;
  Activity activity();
  void beat();
  void hear(Peer& peer);
  void take(Peer& peer, const std::vector<Message>& messages);
  [[noreturn]] void decide(const LostRank& loss);
  void print_last(const std::string& line);
  void say_goodbye(Goodbye message);

  GatherOptions options_;
  std::function<void(const std::string&)> print_;
  std::vector<Peer> peers_;  // the thread's, like the three below
  uint64_t last_progress_ = 0;
  Clock::time_point last_change_, last_beat_;

  std::atomic<int64_t> step_{-1};
  std::atomic<const char*> operation_{""};
  std::atomic<uint64_t> progress_{0};
  std::atomic<bool> ending_{false};  // one thread prints and leaves

  std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  std::optional<Goodbye> goodbye_;
  std::optional<LostRank> verdict_;
  bool watching_ = false;
  bool stop_ = false;
  Descriptor wake_;  // eventfd: goodbye_ or stop_ was set
  std::thread thread_;
};

}  // namespace tandem
