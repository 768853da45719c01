#pragma once
#include <cstdint>
#include <string>
#include <string_view>

// System calls that fail on purpose. faults.cpp defines open, read, write, rename and so on in this
// program; they call the real ones, except for files under one folder while a FaultScope or a
// WriteBudget lives.

namespace tandem {

/// What happens to chosen calls. Counted are the calls that this can happen to.
struct Fault {
  enum Kind {
    kIoError,      // EIO
    kNoSpace,      // ENOSPC
    kQuota,        // EDQUOT
    kNoAccess,     // EACCES
    kInterrupted,  // EINTR, of calls that signals interrupt; for good: every second one, as no
                   // signal comes for ever
    kShort,        // reads and writes take half of the bytes
    kNoRemoval,    // EACCES, of calls that remove something
    kStop,         // the process ends, a write half done, with kStoppedByFault
  };
  Kind kind = kIoError;
  int64_t call = 1;       // the first that it happens to, counted from 1
  bool for_good = false;  // and to all that follow
};
constexpr int kStoppedByFault = 91;

std::string_view name_of(Fault::Kind kind);
/// The errno of a call that fails; 0 for kShort and kStop, which set none.
int errno_of(Fault::Kind kind);

/// Whose files are watched from now on: those opened under FOLDER, an absolute path.
void watch_calls_under(const std::string& folder);

/// Calls fail while it lives. One at a time.
class FaultScope {
 public:
  explicit FaultScope(const Fault& fault);
  ~FaultScope();
  FaultScope(const FaultScope&) = delete;
  /// Calls that the fault could have happened to, up to now.
  int64_t calls() const;
  bool struck() const { return calls() >= fault_.call; }

 private:
  Fault fault_;
};

/// While it lives, so many more bytes can be written in all; then ENOSPC. For a small disk where
/// none can be mounted.
class WriteBudget {
 public:
  explicit WriteBudget(int64_t bytes);
  ~WriteBudget();
  WriteBudget(const WriteBudget&) = delete;
};

}  // namespace tandem
