#include "comm/liveness.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <utility>

#include "core/error.h"
#include "core/signals_blocked.h"

namespace tandem {
namespace {

constexpr double kLongestBetweenBeats = 0.1;  // seconds: as old is the step that a loss names
constexpr double kBeatsPerLimit = 20;         // a rank stopped for most of the limit is not lost
constexpr auto kForGoodbye = std::chrono::seconds(1);
constexpr double kForVerdict = 1;   // seconds that leave() waits for it
constexpr double kForOthers = 0.2;  // seconds that the verdict may take to reach the others
constexpr auto kForPrinting = std::chrono::seconds(2);

double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

std::chrono::steady_clock::duration duration_of(double seconds) {
  return std::chrono::duration_cast<std::chrono::steady_clock::duration>(
      std::chrono::duration<double>(seconds));
}

/// All ranks leave with such a code together: what it means was agreed on in a step.
bool agreed(int64_t exit_code) {
  return exit_code == kExitDone || exit_code == kExitStopped || exit_code == 130 ||
         exit_code == 143;
}

std::string stopped(double seconds) {
  char text[64];
  std::snprintf(text, sizeof text, "stopped answering for %.1f s", seconds);
  return text;
}

double between_beats(const GatherOptions& options) {
  return std::min(kLongestBetweenBeats, options.heartbeat_seconds / kBeatsPerLimit);
}

}  // namespace

Liveness::Liveness(const GatherOptions& options, const Rendezvous& rendezvous,
                   std::function<void(const std::string& line)> print)
    : options_(options), print_(std::move(print)) {
  if (options.world <= 1) return;
  peers_ = gather_ranks(options, rendezvous);
  wake_ = Descriptor(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  if (!wake_) throw UserError(kExitInternal, "eventfd: too many open files");
  last_change_ = last_beat_ = Clock::now();
  for (auto& peer : peers_) peer.last_heard = Clock::now();
  watching_ = true;
  const SignalsBlocked signals;  // SIGTERM and SIGINT are the main thread's
  thread_ = std::thread([this] { watch(); });
}

Liveness::~Liveness() {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  ::eventfd_write(wake_.fd(), 1);
  thread_.join();
}

void Liveness::report(int64_t step, const char* operation) {
  step_.store(step, std::memory_order_relaxed);
  operation_.store(operation, std::memory_order_relaxed);
  progress_.fetch_add(1, std::memory_order_relaxed);
}

void Liveness::goodbye(int exit_code, const std::string& reason) {
  std::unique_lock lock(mutex_);
  if (!watching_) return;
  if (!goodbye_) goodbye_ = Goodbye{exit_code, reason, {}};
  ::eventfd_write(wake_.fd(), 1);
  changed_.wait_for(lock, kForGoodbye, [this] { return !watching_; });
}

std::optional<LostRank> Liveness::wait_for_verdict(double seconds) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, duration_of(seconds), [this] { return verdict_ || !watching_; });
  return verdict_;
}

void Liveness::leave(const std::string& message) {
  if (wait_for_verdict(kForVerdict)) {
    for (;;) ::pause();  // the thread that heard it prints and leaves
  }
  goodbye(kExitPeerLost, message);
  print_last(message + "; leaving with " + std::to_string(kExitPeerLost));
  ::_exit(kExitPeerLost);
}

/// In one thread only: any other that comes here waits for the end of the process.
void Liveness::print_last(const std::string& line) {
  if (ending_.exchange(true)) {
    for (;;) ::pause();
  }
  try {
    std::thread([] {  // standard error may be a pipe that nobody reads
      std::this_thread::sleep_for(kForPrinting);
      ::_exit(kExitPeerLost);
    })
        .detach();
    print_(line);
  } catch (...) {  // the exit code says it too
  }
  std::fflush(stdout);
}

void Liveness::watch() {
  try {
    watch_until_goodbye();
  } catch (const std::exception& error) {
    print_last(std::string("liveness: ") + error.what());
    ::_exit(kExitPeerLost);
  }
  const std::lock_guard lock(mutex_);
  watching_ = false;
  changed_.notify_all();
}

void Liveness::watch_until_goodbye() {
  const double interval = between_beats(options_);
  for (auto& peer : peers_) take(peer, std::exchange(peer.unread, {}));
  for (auto looked = Clock::now();;) {
    {
      const std::lock_guard lock(mutex_);
      if (stop_ || goodbye_) break;
    }
    if (seconds_since(last_beat_) >= interval) beat();
    const double wait = std::max(0.0, interval - seconds_since(last_beat_));
    wait_for(watched(), wait);
    const auto now = Clock::now();
    // Stopped or starved itself for that long, this process may have missed that others answered.
    const auto late = now - looked - duration_of(wait);
    looked = now;
    for (auto& peer : peers_) {
      if (late > duration_of(interval)) peer.last_heard += late;
      hear(peer);
      const double silent = std::chrono::duration<double>(now - peer.last_heard).count();
      if (!peer.left && silent >= options_.heartbeat_seconds) decide(peer.loss(stopped(silent)));
    }
  }
  std::optional<Goodbye> goodbye;
  {
    const std::lock_guard lock(mutex_);
    goodbye = goodbye_;
  }
  if (goodbye) say_goodbye(std::move(*goodbye));
}

std::vector<Watched> Liveness::watched() const {
  std::vector<Watched> all = {{wake_.fd(), false}};
  for (const auto& peer : peers_) {
    if (peer.open()) all.push_back(peer.connection.watched());
  }
  return all;
}

Activity Liveness::activity() {
  const uint64_t progress = progress_.load(std::memory_order_relaxed);
  if (std::exchange(last_progress_, progress) != progress) last_change_ = Clock::now();
  const auto stalled =
      std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - last_change_);
  return {step_.load(std::memory_order_relaxed), stalled.count(),
          operation_.load(std::memory_order_relaxed)};
}

void Liveness::beat() {
  last_beat_ = Clock::now();
  const Beat message{activity()};
  for (auto& peer : peers_) {
    // Nothing piles up for a rank that does not read.
    if (peer.open() && !peer.connection.waiting()) peer.connection.send(message);
  }
}

void Liveness::hear(Peer& peer) {
  if (peer.left && !peer.open()) return;
  peer.connection.flush();
  std::vector<Message> messages;
  try {
    messages = peer.connection.receive();
  } catch (const MalformedMessage& malformed) {
    decide(peer.loss(std::string("sent what no rank sends: ") + malformed.what()));
  }
  if (!messages.empty()) peer.last_heard = Clock::now();
  take(peer, messages);
  if (!peer.open() && !peer.left) decide(peer.loss("was killed or crashed"));
}

void Liveness::take(Peer& peer, const std::vector<Message>& messages) {
  for (const auto& message : messages) {
    if (const auto* loss = std::get_if<LostRank>(&message)) decide(*loss);
    if (const auto* alive = std::get_if<Beat>(&message)) peer.activity = alive->activity;
    const auto* last = std::get_if<Goodbye>(&message);
    if (last == nullptr) continue;
    peer.left = true;
    peer.activity = last->activity;
    if (!agreed(last->exit_code))
      decide(peer.loss("left with exit code " + std::to_string(last->exit_code), last->reason));
  }
}

/// The first loss is the one that all ranks name. The lost rank is told too: it may wake up.
void Liveness::decide(const LostRank& loss) {
  for (auto& peer : peers_) {
    if (peer.open()) peer.connection.send(loss);
  }
  {
    const std::lock_guard lock(mutex_);
    verdict_ = loss;
  }
  changed_.notify_all();
  print_last(loss.line());
  // Rank 0 stays until the others have heard it and close.
  const auto begin = Clock::now();
  while (options_.rank == 0 && seconds_since(begin) < kForOthers) {
    bool all_closed = true;
    for (auto& peer : peers_) {
      try {
        peer.connection.flush();
        peer.connection.receive();
      } catch (const MalformedMessage&) {
      }
      all_closed = all_closed && (!peer.open() || peer.rank == loss.rank);
    }
    if (all_closed) break;
    wait_for({}, 0.005);
  }
  ::_exit(kExitPeerLost);
}

void Liveness::say_goodbye(Goodbye message) {
  message.activity = activity();
  for (auto& peer : peers_) {
    if (peer.open()) peer.connection.send(message);
  }
  const auto begin = Clock::now();
  for (auto& peer : peers_) {
    while (peer.connection.waiting() && seconds_since(begin) < kForOthers) {
      wait_for({}, 0.005);
      peer.connection.flush();
    }
    peer.connection.end_sending();
  }
}

}  // namespace tandem
