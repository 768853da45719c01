#include "comm/connection.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstring>
#include <memory>

#include "core/error.h"

namespace tandem {
namespace {

using Addresses = std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)>;

/// Those of a name; none, and `error` set, where it is unknown.
Addresses addresses_of(const std::string& name, int64_t port, std::string* error) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int rc = ::getaddrinfo(name.c_str(), std::to_string(port).c_str(), &hints, &found);
  if (rc != 0) *error = ::gai_strerror(rc);
  return {found, &::freeaddrinfo};
}

Descriptor new_socket(const addrinfo& address) {
  return Descriptor(::socket(address.ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
}

bool is_loopback(const sockaddr* address) {
  if (address->sa_family == AF_INET6)
    return IN6_IS_ADDR_LOOPBACK(&reinterpret_cast<const sockaddr_in6*>(address)->sin6_addr);
  const auto& v4 = reinterpret_cast<const sockaddr_in*>(address)->sin_addr;
  return address->sa_family == AF_INET && ntohl(v4.s_addr) >> 24 == 127;
}

bool names_loopback(const std::string& address) {
  return address == "localhost" || address == "::1" || address.starts_with("127.");
}

bool bound(const Descriptor& socket, const sockaddr* address, socklen_t size) {
  return socket && ::bind(socket.fd(), address, size) == 0 && ::listen(socket.fd(), SOMAXCONN) == 0;
}

/// Bound to a free port at all addresses of this machine.
Descriptor bound_everywhere() {
  addrinfo address{};
  address.ai_family = AF_INET6;
  if (Descriptor socket = new_socket(address); socket) {
    const int off = 0;
    ::setsockopt(socket.fd(), IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    sockaddr_in6 any{};
    any.sin6_family = AF_INET6;
    if (bound(socket, reinterpret_cast<const sockaddr*>(&any), sizeof any)) return socket;
  }
  address.ai_family = AF_INET;
  sockaddr_in any{};
  any.sin_family = AF_INET;
  Descriptor socket = new_socket(address);
  if (!bound(socket, reinterpret_cast<const sockaddr*>(&any), sizeof any)) socket.close();
  return socket;
}

int64_t port_of(const Descriptor& socket) {
  sockaddr_storage storage{};
  socklen_t size = sizeof storage;
  auto* address = reinterpret_cast<sockaddr*>(&storage);
  if (::getsockname(socket.fd(), address, &size) != 0) return 0;
  return ntohs(address->sa_family == AF_INET6
                   ? reinterpret_cast<const sockaddr_in6*>(address)->sin6_port
                   : reinterpret_cast<const sockaddr_in*>(address)->sin_port);
}

/// 0, or the errno of the connection that was tried.
int connected(const Descriptor& socket, const addrinfo& address, double seconds) {
  if (!socket) return errno;
  if (::connect(socket.fd(), address.ai_addr, address.ai_addrlen) == 0) return 0;
  if (errno != EINPROGRESS && errno != EINTR) return errno;
  pollfd ready{socket.fd(), POLLOUT, 0};
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  int rc;
  do {
    const std::chrono::duration<double, std::milli> left = end - std::chrono::steady_clock::now();
    rc = ::poll(&ready, 1, static_cast<int>(std::ceil(std::clamp(left.count(), 0.0, 1e9))));
  } while (rc < 0 && errno == EINTR);
  if (rc == 0) return ETIMEDOUT;
  int error = 0;
  socklen_t size = sizeof error;
  return ::getsockopt(socket.fd(), SOL_SOCKET, SO_ERROR, &error, &size) == 0 ? error : errno;
}

bool would_block() { return errno == EAGAIN || errno == EWOULDBLOCK; }

}  // namespace

Descriptor& Descriptor::operator=(Descriptor&& other) noexcept {
  if (this != &other) {
    close();
    fd_ = std::exchange(other.fd_, -1);
  }
  return *this;
}

void Descriptor::close() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

void wait_for(const std::vector<Watched>& watched, double seconds) {
  std::vector<pollfd> ready;
  ready.reserve(watched.size());
  for (const auto& one : watched)
    ready.push_back({one.fd, static_cast<short>(POLLIN | (one.also_write ? POLLOUT : 0)), 0});
  // Interrupted, it returns early: callers look at the clock themselves.
  ::poll(ready.data(), ready.size(),
         static_cast<int>(std::ceil(std::clamp(seconds, 0.0, 1e6) * 1000)));
}

Listener::Listener(const std::string& address) {
  std::string error;
  const Addresses all = addresses_of(address, 0, &error);
  for (const addrinfo* one = all.get(); one != nullptr && !socket_; one = one->ai_next) {
    if (is_loopback(one->ai_addr) && !names_loopback(address)) continue;
    Descriptor socket = new_socket(*one);
    if (bound(socket, one->ai_addr, one->ai_addrlen)) socket_ = std::move(socket);
  }
  if (!socket_ && error.empty()) error = std::strerror(errno);
  if (!socket_ && !names_loopback(address)) socket_ = bound_everywhere();
  if (!socket_) {
    throw bad_usage("address of rank 0 '" + one_line(address) + "': cannot listen there: " + error);
  }
  port_ = port_of(socket_);
}

Descriptor Listener::accept() {
  return Descriptor(::accept4(fd(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
}

Descriptor connect_to(const std::string& address, int64_t port, double seconds,
                      std::string* error) {
  const Addresses all = addresses_of(address, port, error);
  for (const addrinfo* one = all.get(); one != nullptr; one = one->ai_next) {
    Descriptor socket = new_socket(*one);
    const int code = connected(socket, *one, seconds);
    if (code == 0) return socket;
    *error = std::strerror(code);
  }
  return Descriptor();
}

Connection::Connection(Descriptor socket) : socket_(std::move(socket)) {
  const int on = 1;  // a verdict never waits until an earlier beat is acknowledged
  ::setsockopt(fd(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

void Connection::send(const Message& message) {
  unsent_ += encode(message);
  flush();
}

void Connection::flush() {
  while (waiting()) {
    const ssize_t n = ::send(fd(), unsent_.data(), unsent_.size(), MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      // Broken for writing: what was received before may still be read, and then shows the end.
      if (!would_block()) unsent_.clear();
      return;
    }
    unsent_.erase(0, static_cast<size_t>(n));
  }
}

std::vector<Message> Connection::receive() {
  std::vector<Message> messages;
  std::array<char, 4096> piece;
  for (int round = 0; round < 16 && !closed_; ++round) {  // whoever sends without end waits
    const ssize_t n = ::recv(fd(), piece.data(), piece.size(), 0);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && would_block()) break;
    if (n <= 0) {
      closed_ = true;
      break;
    }
    reader_.add({piece.data(), static_cast<size_t>(n)});
    while (auto message = reader_.next()) messages.push_back(std::move(*message));
  }
  return messages;
}

void Connection::end_sending() { ::shutdown(fd(), SHUT_WR); }

}  // namespace tandem
