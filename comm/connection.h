#pragma once
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "comm/liveness_message.h"

namespace tandem {

/// A file descriptor, closed by the destructor. Move-only.
class Descriptor {
 public:
  explicit Descriptor(int fd = -1) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept;
  ~Descriptor() { close(); }
  int fd() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  void close();

 private:
  int fd_;
};

/// Waits until one of `watched` is ready, at most `seconds`.
struct Watched {
  int fd = -1;
  bool also_write = false;
};
void wait_for(const std::vector<Watched>& watched, double seconds);

/// A socket that accepts connections on a free port of this machine.
class Listener {
 public:
  /// At `address` alone where that is this machine's loopback ("127.0.0.1", "::1", "localhost") or another address of its own. On all addresses where it is not, as behind
  /// address translation, or where a host's name stands for its loopback in its own table, which others read differently. Throws UserError (kExitUsage) for a name that is unknown.
  explicit Listener(const std::string& address);
  int64_t port() const { return port_; }
  int fd() const { return socket_.fd(); }
  Descriptor accept();  ///< the next connection, or nothing

 private:
  Descriptor socket_;
  int64_t port_ = 0;
};

/// Empty, with `error` set, where there is no connection within `seconds`.
Descriptor connect_to(const std::string& address, int64_t port, double seconds, std::string* error);

/// Messages over a socket that never blocks.
class Connection {
 public:
  explicit Connection(Descriptor socket);
  /// What does not go out at once waits for flush().
  void send(const Message& message);
  void flush();
  bool waiting() const { return !unsent_.empty() && !closed_; }
  /// All that came since. The last ones before the end are returned before closed(). Throws MalformedMessage.
  std::vector<Message> receive();
  bool closed() const { return closed_; }  ///< by the other side, or broken
  void end_sending();
  int fd() const { return socket_.fd(); }
  Watched watched() const { return {fd(), waiting()}; }

 private:
  Descriptor socket_;
  MessageReader reader_;
  std::string unsent_;
  bool closed_ = false;
};

}  // namespace tandem
