#include "comm/gather_ranks.h"

#include <sys/random.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <optional>
#include <thread>
#include <utility>

#include "core/error.h"

namespace tandem {
namespace {

using Clock = std::chrono::steady_clock;
constexpr const char* kKey = "liveness";
constexpr double kLongestTrySeconds = 10;  // for each address that the name stands for
constexpr auto kBetweenTries = std::chrono::milliseconds(50);

double seconds_until(Clock::time_point end) {
  return std::chrono::duration<double>(end - Clock::now()).count();
}

Clock::time_point after(double seconds) {
  return Clock::now() +
         std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
}

std::string seconds_text(double seconds) {
  char text[32];
  std::snprintf(text, sizeof text, "%g s", seconds);
  return text;
}

/// 128 random bits in hexadecimal.
std::string new_token() {
  unsigned char bytes[16];
  if (::getentropy(bytes, sizeof bytes) != 0)
    throw UserError(kExitInternal, "no random bytes from the system");
  std::string token;
  for (const unsigned char byte : bytes)
    token += {"0123456789abcdef"[byte >> 4], "0123456789abcdef"[byte & 15]};
  return token;
}

/// Takes as long wherever they differ.
bool same_token(const std::string& a, const std::string& b) {
  if (a.size() != b.size()) return false;
  unsigned char difference = 0;
  for (size_t i = 0; i < a.size(); ++i) difference |= static_cast<unsigned char>(a[i] ^ b[i]);
  return difference == 0;
}

/// Connections to rank 0 until all ranks are there.
class Gathering {
 public:
  Gathering(const GatherOptions& options, const Rendezvous& rendezvous)
      : options_(options), listener_(options.address), token_(new_token()) {
    rendezvous.publish(kKey, std::to_string(listener_.port()) + " " + token_);
  }

  std::vector<Peer> run() {
    const auto end = after(options_.connect_seconds);
    while (here_.size() + 1 < static_cast<size_t>(options_.world)) {
      if (Clock::now() >= end) refuse_all(missing());
      std::vector<Watched> watched = {{listener_.fd(), false}};
      for (const auto& stranger : strangers_) watched.push_back(stranger.connection.watched());
      for (const auto& peer : here_) watched.push_back(peer.connection.watched());
      wait_for(watched, std::clamp(seconds_until(end), 0.0, 0.2));
      accept_strangers();
      hear_strangers();
      check_those_here();
    }
    std::sort(here_.begin(), here_.end(),
              [](const Peer& a, const Peer& b) { return a.rank < b.rank; });
    for (auto& peer : here_) peer.connection.send(Start{::getpid(), host_name()});
    return std::move(here_);
  }

 private:
  struct Stranger {
    Connection connection;
    Clock::time_point end;
  };

  void accept_strangers() {
    for (int i = 0; i < 16; ++i) {  // each is heard before more come in than are held
      Descriptor socket = listener_.accept();
      if (!socket) return;
      if (strangers_.size() == kMostStrangers) strangers_.erase(strangers_.begin());
      strangers_.push_back({Connection(std::move(socket)), after(kStrangerSeconds)});
    }
  }

  void hear_strangers() {
    std::vector<Stranger> still;
    for (auto& stranger : strangers_) {
      std::vector<Message> messages;
      try {
        messages = stranger.connection.receive();
      } catch (const MalformedMessage&) {
        continue;
      }
      if (!messages.empty()) {
        const auto* hello = std::get_if<Hello>(&messages.front());
        if (hello != nullptr && same_token(hello->token, token_))
          welcome(*hello, std::move(stranger.connection));
      } else if (!stranger.connection.closed() && Clock::now() < stranger.end) {
        still.push_back(std::move(stranger));
      }
    }
    strangers_ = std::move(still);
  }

  /// `hello` is from a process of this job.
  void welcome(const Hello& hello, Connection connection) {
    const std::string who = "rank " + std::to_string(hello.rank) + " (" + one_line(hello.host) +
                            ", process " + std::to_string(hello.pid) + ")";
    if (hello.world != options_.world || hello.rank < 1 || hello.rank >= options_.world) {
      connection.send(Refused{kExitUsage, who + " of a world of " + std::to_string(hello.world) +
                                              " came to rank 0 of a world of " +
                                              std::to_string(options_.world)});
      return;
    }
    for (const auto& peer : here_) {
      if (peer.rank != hello.rank) continue;
      connection.send(Refused{kExitUsage, who + " came while process " + std::to_string(peer.pid) +
                                              " on " + one_line(peer.host) + " is that rank"});
      return;
    }
    here_.push_back({hello.rank, hello.pid, hello.host, std::move(connection)});
  }

  /// A rank that ends while others are still awaited would be missed at the first collective only.
  void check_those_here() {
    for (auto& peer : here_) {
      try {
        peer.connection.receive();
      } catch (const MalformedMessage&) {
      }
      if (peer.open()) continue;
      const LostRank loss = peer.loss("was killed, crashed or gave up while ranks were awaited");
      refuse_all(loss.line());
    }
  }

  std::string missing() const {
    std::string names;
    for (int64_t rank = 1; rank < options_.world; ++rank) {
      const bool is_here = std::any_of(here_.begin(), here_.end(),
                                       [&](const Peer& peer) { return peer.rank == rank; });
      if (!is_here) names += (names.empty() ? "" : ", ") + std::to_string(rank);
    }
    return "of " + std::to_string(options_.world) + " ranks these did not come within " +
           seconds_text(options_.connect_seconds) + ": " + one_line(names);
  }

  [[noreturn]] void refuse_all(const std::string& reason) {
    for (auto& peer : here_) peer.connection.send(Refused{kExitPeerLost, reason});
    throw UserError(kExitPeerLost, reason);
  }

  const GatherOptions& options_;
  Listener listener_;
  std::string token_;
  std::vector<Stranger> strangers_;
  std::vector<Peer> here_;
};

/// A connection to rank 0 over which Start came, or nothing where it was cut before. Throws
/// UserError where it refuses this rank.
std::optional<Peer> try_to_join(const GatherOptions& options, int64_t port,
                                const std::string& token, Clock::time_point end,
                                std::string* error) {
  const double longest = std::clamp(seconds_until(end), 0.0, kLongestTrySeconds);
  Descriptor socket = connect_to(options.address, port, longest, error);
  if (!socket) return std::nullopt;
  Connection connection(std::move(socket));
  connection.send(Hello{token, options.rank, options.world, ::getpid(), host_name()});
  *error = "it does not answer";
  while (!connection.closed() && Clock::now() < end) {
    wait_for({connection.watched()}, std::clamp(seconds_until(end), 0.0, 1.0));
    connection.flush();
    std::vector<Message> messages = connection.receive();
    if (messages.empty()) continue;
    if (const auto* refused = std::get_if<Refused>(&messages.front()))
      throw UserError(static_cast<int>(refused->exit_code), refused->reason);
    const auto* start = std::get_if<Start>(&messages.front());
    if (start == nullptr) throw MalformedMessage("it does not begin with a start");
    Peer root{0, start->pid, start->host, std::move(connection)};
    root.unread.assign(messages.begin() + 1, messages.end());
    return root;
  }
  if (connection.closed()) *error = "it closes the connection";
  return std::nullopt;
}

std::vector<Peer> join(const GatherOptions& options, const Rendezvous& rendezvous) {
  // A second more than rank 0 has, which tells who is missing.
  const auto end = after(options.connect_seconds + 1);
  const std::string found = rendezvous.lookup(kKey, options.connect_seconds);
  const size_t space = found.find(' ');
  const int64_t port = std::atoll(found.c_str());
  if (space == std::string::npos || port < 1 || port > 65535)
    throw UserError(kExitPeerLost, "rank 0 published no port but '" + one_line(found) + "'");
  const std::string token = found.substr(space + 1);
  std::string error;
  while (Clock::now() < end) {
    std::optional<Peer> root;
    try {
      root = try_to_join(options, port, token, end, &error);
    } catch (const MalformedMessage& malformed) {
      error = malformed.what();
    }
    if (root) {
      std::vector<Peer> peers;
      peers.push_back(std::move(*root));
      return peers;
    }
    std::this_thread::sleep_for(kBetweenTries);
  }
  throw UserError(kExitPeerLost, "rank " + std::to_string(options.rank) +
                                     ": no start from rank 0 at " + one_line(options.address) +
                                     ", port " + std::to_string(port) + ", within " +
                                     seconds_text(options.connect_seconds) + ": " + error);
}

}  // namespace

std::string host_name() {
  char name[256] = "localhost";
  ::gethostname(name, sizeof name - 1);
  return name;
}

std::vector<Peer> gather_ranks(const GatherOptions& options, const Rendezvous& rendezvous) {
  return options.rank == 0 ? Gathering(options, rendezvous).run() : join(options, rendezvous);
}

}  // namespace tandem
