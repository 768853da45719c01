#include "comm/meeting.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <map>
#include <random>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <utility>
#include <vector>

#include "comm/gather_ranks.h"

namespace tandem {
namespace {

using Clock = std::chrono::steady_clock;
using Deadline = Clock::time_point;

std::vector<uint8_t> bytes_of(const std::string& text) { return {text.begin(), text.end()}; }
std::string text_of(const std::vector<uint8_t>& bytes) { return {bytes.begin(), bytes.end()}; }
std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

std::chrono::milliseconds until(Deadline deadline) {
  const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now());
  return std::max(left, std::chrono::milliseconds(1));
}

bool is_loopback(const std::string& address) {
  return address == "localhost" || address == "::1" || address.starts_with("127.");
}

/// A socket that listens on loopback alone, as nobody else is to reach the store: TCPStore by
/// itself listens on every address.
int listen_on_loopback(const std::string& address, int64_t port) {
  sockaddr_storage storage{};
  socklen_t size = sizeof(sockaddr_in);
  const auto number = htons(static_cast<uint16_t>(port));
  if (address == "::1") {
    auto& v6 = reinterpret_cast<sockaddr_in6&>(storage);
    v6.sin6_family = AF_INET6;
    v6.sin6_addr = in6addr_loopback;
    v6.sin6_port = number;
    size = sizeof v6;
  } else {
    auto& v4 = reinterpret_cast<sockaddr_in&>(storage);
    v4.sin_family = AF_INET;
    v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (address != "localhost") ::inet_pton(AF_INET, address.c_str(), &v4.sin_addr);
    v4.sin_port = number;
  }
  Descriptor socket(::socket(storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int on = 1;  // a job that starts again finds connections of the one before still closing
  ::setsockopt(socket.fd(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (!socket || ::bind(socket.fd(), reinterpret_cast<const sockaddr*>(&storage), size) != 0 ||
      ::listen(socket.fd(), SOMAXCONN) != 0)
    throw bad_usage(
        fmt::format("rank 0 cannot serve the meeting of ranks at {}:{}: {}; is another job there?",
                    address, port, std::strerror(errno)));
  return ::fcntl(socket.fd(), F_DUPFD_CLOEXEC, 0);
}

/// Connects to the store of rank 0 or of the launcher.
StorePointer open_store(const Launch& launch, double seconds, Deadline deadline) {
  c10d::TCPStoreOptions options;
  options.port = static_cast<uint16_t>(launch.port);
  options.isServer = launch.rank == 0 && !launch.store_is_served;
  options.waitWorkers = false;
  options.timeout = until(deadline);
  if (options.isServer && is_loopback(launch.address))
    options.masterListenFd = listen_on_loopback(launch.address, launch.port);
  try {
    auto store = c10::make_intrusive<c10d::TCPStore>(launch.address, options);
    return c10::make_intrusive<c10d::PrefixStore>("tandem/" + launch.attempt, store);
  } catch (const std::exception& error) {
    const std::string where = fmt::format("{}:{}", launch.address, launch.port);
    if (options.isServer)
      throw bad_usage(
          fmt::format("rank 0 cannot serve the meeting of ranks at {}: {}; is another job there?",
                      where, first_line(error.what())));
    throw PeerLost(fmt::format("rank {} did not reach rank 0 at {} within {} s: {}", launch.rank,
                               where, seconds, first_line(error.what())));
  }
}

/// The numbers of the two ends of a connection to rank 0; the host's name where there is none.
struct Route {
  std::string own, root;
};
Route route_to_root(const Launch& launch, Deadline deadline) {
  std::string error;
  const double seconds = std::chrono::duration<double>(until(deadline)).count();
  const Descriptor socket = connect_to(launch.address, launch.port, seconds, &error);
  const auto numbers = [&](const auto& name_of_end) {
    sockaddr_storage storage{};
    socklen_t size = sizeof storage;
    auto* address = reinterpret_cast<sockaddr*>(&storage);
    char text[NI_MAXHOST] = "";
    if (name_of_end(socket.fd(), address, &size) != 0 ||
        ::getnameinfo(address, size, text, sizeof text, nullptr, 0, NI_NUMERICHOST) != 0)
      return host_name();
    return std::string(text);
  };
  return {numbers(::getsockname), numbers(::getpeername)};
}

/// What a rank says when it comes.
struct Arrival {
  int64_t rank = 0, world = 0, pid = 0;
  std::string host, root, fingerprint;  // root: the number by which it reached rank 0
  std::string who() const { return fmt::format("rank {} ({})", rank, host); }
};

/// "LENGTH:RANK WORLD PID HOST ROOT FINGERPRINT", the last with any characters.
std::string encoded(const Arrival& arrival) {
  const std::string text =
      fmt::format("{} {} {} {} {} {}", arrival.rank, arrival.world, arrival.pid, arrival.host,
                  arrival.root, arrival.fingerprint);
  return fmt::format("{}:{}", text.size(), text);
}

std::vector<Arrival> decoded(const std::string& text) {
  std::vector<Arrival> all;
  for (size_t at = 0; at < text.size();) {
    size_t length = 0;
    const size_t colon = text.find(':', at);
    if (colon == text.npos || std::from_chars(&text[at], &text[colon], length).ec != std::errc() ||
        length > text.size() - colon - 1)
      throw PeerLost("what ranks said when they met cannot be read");
    std::string rest = text.substr(colon + 1, length);
    const auto word = [&] {
      const size_t space = std::min(rest.find(' '), rest.size());
      std::string first = rest.substr(0, space);
      rest.erase(0, space + 1);
      return first;
    };
    Arrival arrival;
    for (int64_t* number : {&arrival.rank, &arrival.world, &arrival.pid}) {
      const std::string digits = word();
      std::from_chars(digits.data(), digits.data() + digits.size(), *number);
    }
    arrival.host = word();
    arrival.root = word();
    arrival.fingerprint = rest;
    all.push_back(std::move(arrival));
    at = colon + 1 + length;
  }
  std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.rank < b.rank; });
  return all;
}

constexpr const char* kArrivals = "arrivals";
constexpr const char* kVerdict = "verdict";
constexpr const char* kRead = "read";

std::vector<Arrival> arrivals(c10d::Store& store) { return decoded(text_of(store.get(kArrivals))); }

/// What all ranks make of the meeting: an exit code and a line, or 0 and the token of the job.
struct Verdict {
  int code = 0;
  std::string line;
};

/// Code 0 where those who came were started with the same. The odd ones are those that fewer share,
/// among two the one that is not rank 0.
Verdict compare(const std::vector<Arrival>& came) {
  std::map<std::pair<int64_t, std::string>, std::vector<const Arrival*>> kinds;
  for (const auto& arrival : came) kinds[{arrival.world, arrival.fingerprint}].push_back(&arrival);
  if (kinds.size() <= 1) return {};
  const auto most = std::max_element(kinds.begin(), kinds.end(), [](const auto& a, const auto& b) {
    const auto &left = a.second, &right = b.second;
    return left.size() != right.size() ? left.size() < right.size()
                                       : left.front()->rank > right.front()->rank;
  });
  const Arrival& usual = *most->second.front();
  const auto odd = std::find_if(came.begin(), came.end(), [&](const Arrival& arrival) {
    return arrival.world != usual.world || arrival.fingerprint != usual.fingerprint;
  });
  if (odd->world != usual.world)
    return {kExitUsage, fmt::format("{} was started with another world size than {}: {}, not {}",
                                    odd->who(), usual.who(), odd->world, usual.world)};
  return {kExitUsage,
          fmt::format("{} was started with another config than {}", odd->who(), usual.who())};
}

Verdict missing(const std::vector<Arrival>& came, int64_t world, double seconds) {
  std::vector<int64_t> ranks;
  for (int64_t r = 0; r < world; ++r) {
    if (std::none_of(came.begin(), came.end(), [&](const Arrival& a) { return a.rank == r; }))
      ranks.push_back(r);
  }
  if (ranks.empty()) return {};
  return {kExitPeerLost,
          fmt::format("rank{} {} of {} did not come within {} s", ranks.size() == 1 ? "" : "s",
                      fmt::join(ranks, ", "), world, seconds)};
}

/// Of those who came, compared before anybody is said to be missing.
Verdict judged(const std::vector<Arrival>& came, int64_t world, double seconds) {
  const Verdict verdict = compare(came);
  return verdict.code != 0 ? verdict : missing(came, world, seconds);
}

/// Rank 0: waits for all, or for a little longer once two differ, so that it is clear which is odd.
Verdict verdict_of_root(c10d::Store& store, const Launch& launch, double seconds,
                        Deadline deadline) {
  auto end = deadline;
  for (;;) {
    const auto came = arrivals(store);
    int64_t world = 0;
    for (const auto& arrival : came) world = std::max(world, arrival.world);
    const bool differ = compare(came).code != 0;
    if (differ) end = std::min(end, Clock::now() + std::chrono::seconds(1));
    const bool complete = differ ? static_cast<int64_t>(came.size()) >= world
                                 : missing(came, launch.world, seconds).code == 0;
    if (complete || Clock::now() >= end) return judged(came, launch.world, seconds);
    usleep(10'000);
  }
}

/// The number of rank 0 by which other machines reach it; empty where all came over loopback.
std::string address_of_root(const std::vector<Arrival>& came) {
  for (const auto& arrival : came) {
    if (!is_loopback(arrival.root)) return arrival.root;
  }
  return "";
}

[[noreturn]] void leave(const Verdict& verdict) {
  if (verdict.code == kExitPeerLost) throw PeerLost(verdict.line);
  throw UserError(verdict.code, verdict.line);
}

/// What rank 0 made of the meeting.
Verdict verdict_of_others(c10d::Store& store, const Launch& launch, double seconds,
                          Deadline deadline) {
  try {
    store.wait({kVerdict}, until(deadline + std::chrono::seconds(2)));
  } catch (const std::exception&) {
    // Where the launcher serves the store, rank 0 itself may be missing.
    if (Clock::now() < deadline) throw;
    const Verdict verdict = judged(arrivals(store), launch.world, seconds);
    if (verdict.code == 0) throw;
    return verdict;
  }
  const std::string text = text_of(store.get(kVerdict));
  store.add(kRead, 1);
  const size_t space = std::min(text.find(' '), text.size() - 1);
  Verdict verdict;
  std::from_chars(text.data(), text.data() + space, verdict.code);
  verdict.line = text.substr(space + 1);
  return verdict;
}

/// Says that `own` is here. Throws where another process is that rank: it was started twice, or by
/// two jobs that meet at one port.
void announce(c10d::Store& store, const Arrival& own) {
  if (store.add(fmt::format("claim/{}", own.rank), 1) == 1) {
    store.append(kArrivals, bytes_of(encoded(own)));
    return;
  }
  std::string other = "another process";
  if (store.check({kArrivals})) {
    for (const auto& arrival : arrivals(store)) {
      if (arrival.rank == own.rank)
        other = fmt::format("process {} on {}", arrival.pid, arrival.host);
    }
  }
  throw bad_usage(
      fmt::format("rank {} ({}, process {}) came while {} is that rank: are two jobs at one port?",
                  own.rank, own.host, own.pid, other));
}

}  // namespace

std::shared_ptr<Mesh::Meeting> meet(const Launch& launch, const MeshOptions& options,
                                    Deadline deadline) {
  const double seconds = options.limits.setup_seconds;
  const StorePointer store = open_store(launch, seconds, deadline);
  const Route route = route_to_root(launch, deadline);
  const Arrival own{launch.rank, launch.world, ::getpid(),
                    host_name(), route.root,   options.fingerprint};
  Verdict verdict;
  std::vector<Arrival> came;
  try {
    announce(*store, own);
    if (launch.rank == 0) {
      verdict = verdict_of_root(*store, launch, seconds, deadline);
      std::random_device random;
      if (verdict.code == 0) verdict.line = fmt::format("{:08x}{:08x}", random(), random());
      store->set(kVerdict, bytes_of(fmt::format("{} {}", verdict.code, verdict.line)));
    } else {
      verdict = verdict_of_others(*store, launch, seconds, deadline);
    }
    // Rank 0 and its store leave as soon as all have read a bad verdict: others ask for no more.
    if (launch.rank == 0 || verdict.code == 0) came = arrivals(*store);
  } catch (const UserError&) {
    throw;
  } catch (const std::exception& error) {
    throw PeerLost(
        fmt::format("rank 0 left while ranks were meeting: {}", first_line(error.what())));
  }
  if (verdict.code == 0) {  // and this rank is among those that were compared
    const auto same = compare({came.front(), own});
    if (same.code != 0) leave(same);
  } else {
    // The store goes with rank 0: it stays until those who came have read the same.
    const auto end = Clock::now() + std::chrono::seconds(2);
    while (launch.rank == 0 && store->add(kRead, 0) + 1 < static_cast<int64_t>(came.size()) &&
           Clock::now() < end)
      usleep(5'000);
    leave(verdict);
  }
  auto meeting = std::make_shared<Mesh::Meeting>();
  meeting->store = c10::make_intrusive<c10d::PrefixStore>(verdict.line, store);
  meeting->address = route.own;
  // A host's own name is loopback in the table of many hosts: this is rank 0's machine then.
  const std::string root = address_of_root(came);
  if (is_loopback(route.own) && !root.empty()) meeting->address = root;
  return meeting;
}

void publish(Mesh::Meeting& meeting, const std::string& key, const std::string& value) {
  meeting.store->set(key, bytes_of(value));
}

std::string lookup(Mesh::Meeting& meeting, const std::string& key, double seconds) {
  try {
    meeting.store->wait({key}, std::chrono::milliseconds(static_cast<int64_t>(seconds * 1000)));
    return text_of(meeting.store->get(key));
  } catch (const std::exception& error) {
    throw PeerLost(
        fmt::format("nobody said {} within {} s: {}", key, seconds, first_line(error.what())));
  }
}

}  // namespace tandem
