#include "tests/soak/faults.h"

#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <stdexcept>

namespace tandem {
namespace {

// The calls below come before main() and after it, so nothing here has a constructor or a
// destructor that runs.
char watched_folder[4096];
std::array<std::atomic<bool>, 65536> watched_descriptors;
std::atomic<bool> armed;
Fault fault;  // set while not armed
std::atomic<int64_t> calls_seen;
std::atomic<int64_t> budget = -1;  // bytes; negative: no limit

enum Trait : unsigned { kPlain = 0, kInterruptible = 1, kTransfers = 2, kRemoves = 4 };
enum class Fate { kGoesOn, kFails, kHalf };

bool can_happen(Fault::Kind kind, unsigned traits) {
  if (kind == Fault::kInterrupted) return (traits & kInterruptible) != 0;
  if (kind == Fault::kShort) return (traits & kTransfers) != 0;
  if (kind == Fault::kNoRemoval) return (traits & kRemoves) != 0;
  return true;
}

/// Of one call on something watched; sets errno where it fails.
Fate fate_of(unsigned traits) {
  if (!armed || !can_happen(fault.kind, traits)) return Fate::kGoesOn;
  const int64_t after = ++calls_seen - fault.call;
  if (after < 0 || (after > 0 && !fault.for_good)) return Fate::kGoesOn;
  if (fault.kind == Fault::kInterrupted && after % 2 == 1) return Fate::kGoesOn;
  if (fault.kind == Fault::kShort) return Fate::kHalf;
  if (fault.kind == Fault::kStop) {
    if (traits & kTransfers) return Fate::kHalf;
    ::_exit(kStoppedByFault);
  }
  errno = errno_of(fault.kind);
  return Fate::kFails;
}

bool fails(bool watched, unsigned traits) { return watched && fate_of(traits) == Fate::kFails; }

bool is_watched(int fd) {
  return fd >= 0 && static_cast<size_t>(fd) < watched_descriptors.size() &&
         watched_descriptors[static_cast<size_t>(fd)];
}
bool is_watched(const char* path) {
  const size_t n = std::strlen(watched_folder);
  return n > 0 && std::strncmp(path, watched_folder, n) == 0 && (path[n] == '/' || path[n] == '\0');
}
bool is_watched(int folder, const char* path) {
  return path[0] == '/' ? is_watched(path) : is_watched(folder);
}

/// Remembers whether what was opened is watched; gives `fd` back.
int opened(int fd, bool watched) {
  if (fd >= 0 && static_cast<size_t>(fd) < watched_descriptors.size())
    watched_descriptors[static_cast<size_t>(fd)] = watched;
  return fd;
}

/// What open() was given after its flags.
mode_t mode_of(int flags, std::va_list arguments) {
  return (flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(arguments, mode_t) : 0;
}

/// The function of this name that would be called without ours.
template <typename Function>
Function* next(const char* name) {
  return reinterpret_cast<Function*>(::dlsym(RTLD_NEXT, name));
}

/// read, write and their like: `call(n)` moves n bytes.
template <typename Call>
ssize_t transfer(int fd, size_t size, Call call) {
  const Fate fate = is_watched(fd) ? fate_of(kInterruptible | kTransfers) : Fate::kGoesOn;
  if (fate == Fate::kFails) return -1;
  const ssize_t moved = call(fate == Fate::kHalf && size > 1 ? size / 2 : size);
  if (fate == Fate::kHalf && fault.kind == Fault::kStop) ::_exit(kStoppedByFault);
  return moved;
}

/// A transfer onto the disk, as far as the budget goes.
template <typename Call>
ssize_t transfer_out(int fd, size_t size, Call call) {
  return transfer(fd, size, [&](size_t n) -> ssize_t {
    const int64_t left = budget;
    if (left < 0 || !is_watched(fd) || n == 0) return call(n);
    if (left == 0) {
      errno = ENOSPC;
      return -1;
    }
    const ssize_t moved = call(std::min(n, static_cast<size_t>(left)));
    if (moved > 0) budget -= moved;
    return moved;
  });
}

}  // namespace

std::string_view name_of(Fault::Kind kind) {
  static constexpr std::string_view kNames[] = {"EIO",   "ENOSPC", "EDQUOT",  "EACCES",
                                                "EINTR", "short",  "removal", "_exit"};
  return kNames[kind];
}

int errno_of(Fault::Kind kind) {
  static constexpr int kErrors[] = {EIO, ENOSPC, EDQUOT, EACCES, EINTR, 0, EACCES, 0};
  return kErrors[kind];
}

void watch_calls_under(const std::string& folder) {
  if (folder.empty() || folder[0] != '/' || folder.size() >= sizeof watched_folder)
    throw std::logic_error("watch_calls_under: " + folder);
  std::strcpy(watched_folder, folder.c_str());
}

FaultScope::FaultScope(const Fault& wanted) : fault_(wanted) {
  fault = wanted;
  calls_seen = 0;
  armed = true;
}
FaultScope::~FaultScope() { armed = false; }
int64_t FaultScope::calls() const { return calls_seen; }

WriteBudget::WriteBudget(int64_t bytes) { budget = bytes; }
WriteBudget::~WriteBudget() { budget = -1; }

}  // namespace tandem

using namespace tandem;  // the functions from here on are the C library's by name

extern "C" {

int open(const char* path, int flags, ...) {
  static auto* const real = next<int(const char*, int, ...)>("open");
  std::va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = mode_of(flags, arguments);
  va_end(arguments);
  const bool watched = is_watched(path);
  return fails(watched, kInterruptible) ? -1 : opened(real(path, flags, mode), watched);
}

int open64(const char* path, int flags, ...) {
  static auto* const real = next<int(const char*, int, ...)>("open64");
  std::va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = mode_of(flags, arguments);
  va_end(arguments);
  const bool watched = is_watched(path);
  return fails(watched, kInterruptible) ? -1 : opened(real(path, flags, mode), watched);
}

int openat(int folder, const char* path, int flags, ...) {
  static auto* const real = next<int(int, const char*, int, ...)>("openat");
  std::va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = mode_of(flags, arguments);
  va_end(arguments);
  const bool watched = is_watched(folder, path);
  return fails(watched, kInterruptible) ? -1 : opened(real(folder, path, flags, mode), watched);
}

int openat64(int folder, const char* path, int flags, ...) {
  static auto* const real = next<int(int, const char*, int, ...)>("openat64");
  std::va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = mode_of(flags, arguments);
  va_end(arguments);
  const bool watched = is_watched(folder, path);
  return fails(watched, kInterruptible) ? -1 : opened(real(folder, path, flags, mode), watched);
}

int close(int fd) {
  static auto* const real = next<int(int)>("close");
  const bool failing = fails(is_watched(fd), kInterruptible);
  const int error = errno;
  const int result = real(opened(fd, false));  // also where it fails: Linux frees the descriptor
  if (failing) errno = error;
  return failing ? -1 : result;
}

ssize_t read(int fd, void* data, size_t size) {
  static auto* const real = next<ssize_t(int, void*, size_t)>("read");
  return transfer(fd, size, [&](size_t n) { return real(fd, data, n); });
}

ssize_t pread(int fd, void* data, size_t size, off_t offset) {
  static auto* const real = next<ssize_t(int, void*, size_t, off_t)>("pread");
  return transfer(fd, size, [&](size_t n) { return real(fd, data, n, offset); });
}

ssize_t write(int fd, const void* data, size_t size) {
  static auto* const real = next<ssize_t(int, const void*, size_t)>("write");
  return transfer_out(fd, size, [&](size_t n) { return real(fd, data, n); });
}

ssize_t pwrite(int fd, const void* data, size_t size, off_t offset) {
  static auto* const real = next<ssize_t(int, const void*, size_t, off_t)>("pwrite");
  return transfer_out(fd, size, [&](size_t n) { return real(fd, data, n, offset); });
}

int fsync(int fd) {
  static auto* const real = next<int(int)>("fsync");
  return fails(is_watched(fd), kInterruptible) ? -1 : real(fd);
}

int ftruncate(int fd, off_t size) noexcept {
  static auto* const real = next<int(int, off_t)>("ftruncate");
  return fails(is_watched(fd), kInterruptible) ? -1 : real(fd, size);
}

int fstat(int fd, struct stat* status) noexcept {
  static auto* const real = next<int(int, struct stat*)>("fstat");
  return fails(is_watched(fd), kPlain) ? -1 : real(fd, status);
}

int flock(int fd, int operation) noexcept {
  static auto* const real = next<int(int, int)>("flock");
  return fails(is_watched(fd), kInterruptible) ? -1 : real(fd, operation);
}

int stat(const char* path, struct stat* status) noexcept {
  static auto* const real = next<int(const char*, struct stat*)>("stat");
  return fails(is_watched(path), kPlain) ? -1 : real(path, status);
}

int lstat(const char* path, struct stat* status) noexcept {
  static auto* const real = next<int(const char*, struct stat*)>("lstat");
  return fails(is_watched(path), kPlain) ? -1 : real(path, status);
}

dirent* readdir(DIR* folder) {
  static auto* const real = next<dirent*(DIR*)>("readdir");
  return fails(is_watched(::dirfd(folder)), kPlain) ? nullptr : real(folder);
}

int closedir(DIR* folder) {
  static auto* const real = next<int(DIR*)>("closedir");
  opened(::dirfd(folder), false);
  return real(folder);
}

int rename(const char* from, const char* to) noexcept {
  static auto* const real = next<int(const char*, const char*)>("rename");
  return fails(is_watched(from), kPlain) ? -1 : real(from, to);
}

int renameat2(int from_folder, const char* from, int to_folder, const char* to,
              unsigned flags) noexcept {
  static auto* const real = next<int(int, const char*, int, const char*, unsigned)>("renameat2");
  const bool failing = fails(is_watched(from_folder, from), kPlain);
  return failing ? -1 : real(from_folder, from, to_folder, to, flags);
}

int mkdir(const char* path, mode_t mode) noexcept {
  static auto* const real = next<int(const char*, mode_t)>("mkdir");
  return fails(is_watched(path), kPlain) ? -1 : real(path, mode);
}

int unlink(const char* path) noexcept {
  static auto* const real = next<int(const char*)>("unlink");
  return fails(is_watched(path), kRemoves) ? -1 : real(path);
}

int unlinkat(int folder, const char* path, int flags) noexcept {
  static auto* const real = next<int(int, const char*, int)>("unlinkat");
  return fails(is_watched(folder, path), kRemoves) ? -1 : real(folder, path, flags);
}

int rmdir(const char* path) noexcept {
  static auto* const real = next<int(const char*)>("rmdir");
  return fails(is_watched(path), kRemoves) ? -1 : real(path);
}

int remove(const char* path) noexcept {
  static auto* const real = next<int(const char*)>("remove");
  return fails(is_watched(path), kRemoves) ? -1 : real(path);
}

}  // extern "C"
