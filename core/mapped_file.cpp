#include "core/mapped_file.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <csignal>
#include <cstring>
#include <mutex>
#include <utility>

#include "core/error.h"
#include "core/file.h"

namespace tandem {
namespace {

// Mapped files that shrink. Reading a page that is gone raises SIGBUS; the handler finds whose page
// it was and says so.
struct Mapping {
  std::atomic<const std::byte*> begin{nullptr};
  std::atomic<size_t> size{0};
  char path[512] = {};
};
std::array<Mapping, 256> mappings;  // of more files than these, a SIGBUS stays unexplained
std::mutex mappings_mutex;
struct sigaction action_before {};

void write_to_stderr(const char* text) {  // only what a signal handler may call
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, text, std::strlen(text));
}

void on_sigbus(int, siginfo_t* info, void*) {
  const auto* address = static_cast<const std::byte*>(info->si_addr);
  for (const Mapping& mapping : mappings) {
    const std::byte* begin = mapping.begin.load();
    if (begin == nullptr || address < begin || address >= begin + mapping.size.load()) continue;
    write_to_stderr(mapping.path);
    write_to_stderr(": became shorter, or unreadable, while it was in use\n");
    ::_exit(kExitBadFile);
  }
  ::sigaction(SIGBUS, &action_before,
              nullptr);  // not ours: the access is repeated and raises it again
}

void remember_mapping(const std::byte* begin, size_t size, const std::string& path) {
  const std::lock_guard lock(mappings_mutex);
  static const bool installed = [] {
    struct sigaction action {};
    action.sa_sigaction = on_sigbus;
    action.sa_flags = SA_SIGINFO;
    return ::sigaction(SIGBUS, &action, &action_before) == 0;
  }();
  if (!installed) return;
  const auto slot = std::find_if(mappings.begin(), mappings.end(),
                                 [](const Mapping& m) { return m.begin.load() == nullptr; });
  if (slot == mappings.end()) return;
  const size_t length = std::min(path.size(), sizeof slot->path - 1);
  std::memcpy(slot->path, path.data(), length);
  slot->path[length] = '\0';
  slot->size = size;
  slot->begin = begin;
}

void forget_mapping(const std::byte* begin) {
  const std::lock_guard lock(mappings_mutex);
  for (Mapping& mapping : mappings) {
    if (mapping.begin.load() == begin) mapping.begin = nullptr;
  }
}

}  // namespace

MappedFile::MappedFile(const std::string& path)
    : bytes_(File::open_read(path).map()), path_(path) {  // the mapping outlives the descriptor
  if (!bytes_.empty()) remember_mapping(bytes_.data(), bytes_.size(), path_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : bytes_(std::exchange(other.bytes_, {})), path_(std::move(other.path_)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(bytes_, other.bytes_);
  std::swap(path_, other.path_);
  return *this;
}

void MappedFile::will_read(size_t offset, size_t n) const {
  static const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  const size_t begin = offset / page * page;
  ::madvise(const_cast<std::byte*>(bytes_.data()) + begin, offset + n - begin, MADV_WILLNEED);
}

MappedFile::~MappedFile() {
  if (bytes_.empty()) return;
  forget_mapping(bytes_.data());
  ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

}  // namespace tandem
