#include "core/file.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>
#include <stdexcept>
#include <system_error>
#include <utility>

#include "core/error.h"

namespace tandem {
namespace {

std::string failed(const char* operation, int error) {
  return std::string("cannot ") + operation + ": " + std::generic_category().message(error);
}
UserError read_failed(const std::string& path, const char* operation) {
  return bad_file(path, failed(operation, errno));
}
UserError write_failed(const std::string& path, const char* operation) {
  return cannot_write(path, failed(operation, errno));
}

constexpr int kMostInterruptions = 1000;  // in a row; more is an error as any other

/// Calls again as long as a signal interrupts.
template <typename Call>
auto retry(Call call) {
  auto result = call();
  for (int i = 0; result < 0 && errno == EINTR && i < kMostInterruptions; ++i) result = call();
  return result;
}

int open_file(const std::string& path, int flags) {
  return retry([&] { return ::open(path.c_str(), flags | O_CLOEXEC, 0666); });
}

struct stat status_of(int fd, const std::string& path) {
  struct stat status {};
  if (::fstat(fd, &status) != 0) throw read_failed(path, "read its size");
  return status;
}

/// Its status, or none where there is no such thing. That it cannot be looked at is no answer.
std::optional<struct stat> look_at(const std::string& path) {
  struct stat status {};
  if (retry([&] { return ::stat(path.c_str(), &status); }) == 0) return status;
  if (errno == ENOENT || errno == ENOTDIR) return std::nullopt;
  throw read_failed(path, "look at it");
}

/// Puts the names in a folder into `names`. Returns the errno of what failed, or 0.
int list_names(const std::string& path, std::vector<std::string>& names) {
  const int fd = open_file(path, O_RDONLY | O_DIRECTORY);
  if (fd < 0) return errno;
  DIR* folder = ::fdopendir(fd);
  if (folder == nullptr) {
    const int error = errno;
    ::close(fd);
    return error;
  }
  errno = 0;
  while (const dirent* entry = ::readdir(folder)) {
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") names.emplace_back(name);
    errno = 0;
  }
  const int error = errno;
  ::closedir(folder);
  return error;
}

/// Removes a file, or a folder with all in it, as far as that can be done. Returns the first errno,
/// or 0.
int remove_all(const std::string& path) {
  if (retry([&] { return ::unlink(path.c_str()); }) == 0) return 0;
  if (errno == ENOENT || errno == ENOTDIR) return 0;  // there is no such thing
  if (errno != EISDIR) return errno;
  std::vector<std::string> names;
  int error = list_names(path, names);
  for (const auto& name : names) {
    const int inside = remove_all(join_path(path, name));
    if (error == 0) error = inside;
  }
  if (error != 0) return error;
  return retry([&] { return ::rmdir(path.c_str()); }) == 0 ? 0 : errno;
}

/// What the process that holds a lock wrote into its file.
std::string holder_text(int fd) {
  char text[256];
  const ssize_t n = retry([&] { return ::pread(fd, text, sizeof text, 0); });
  return n > 0 ? std::string(text, static_cast<size_t>(n)) : "another process";
}

}  // namespace

File File::open_read(const std::string& path) {
  const int fd = open_file(path, O_RDONLY);
  if (fd < 0) throw read_failed(path, "open");
  File file(fd, path);
  if (S_ISDIR(status_of(fd, path).st_mode)) throw bad_file(path, "is a folder, expected a file");
  return file;
}

File File::create(const std::string& path) {
  const int fd = open_file(path, O_WRONLY | O_CREAT | O_TRUNC);
  if (fd < 0) throw write_failed(path, "create");
  return File(fd, path);
}

File File::open_append(const std::string& path) {
  const int fd = open_file(path, O_RDWR | O_CREAT | O_APPEND);  // readable, to look at how it ends
  if (fd < 0) throw write_failed(path, "open for writing");
  return File(fd, path);
}

File::File(File&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)), path_(std::move(other.path_)) {}

File& File::operator=(File&& other) noexcept {
  std::swap(fd_, other.fd_);
  std::swap(path_, other.path_);
  return *this;
}

File::~File() {
  if (fd_ >= 0) ::close(fd_);
}

uint64_t File::size() const { return static_cast<uint64_t>(status_of(fd_, path_).st_size); }

void File::read_at(uint64_t offset, std::span<std::byte> out) const {
  size_t done = 0;
  while (done < out.size()) {
    const ssize_t n = retry([&] {
      return ::pread(fd_, out.data() + done, out.size() - done, static_cast<off_t>(offset + done));
    });
    if (n < 0) throw read_failed(path_, "read");
    if (n == 0) {
      throw bad_file(path_, "ends after " + std::to_string(size()) + " bytes, expected at least " +
                                std::to_string(offset + out.size()));
    }
    done += static_cast<size_t>(n);
  }
}

size_t File::read_next(std::span<std::byte> out) {
  const ssize_t n = retry([&] { return ::read(fd_, out.data(), out.size()); });
  if (n < 0) throw read_failed(path_, "read");
  return static_cast<size_t>(n);
}

void File::write(std::span<const std::byte> data) {
  while (!data.empty()) {
    const ssize_t n = retry([&] { return ::write(fd_, data.data(), data.size()); });
    if (n < 0) throw write_failed(path_, "write");
    if (n == 0) throw cannot_write(path_, "cannot write: the system took no bytes");
    data = data.subspan(static_cast<size_t>(n));
  }
}

void File::write(std::string_view text) { write(std::as_bytes(std::span(text))); }

void File::truncate(uint64_t size) {
  if (retry([&] { return ::ftruncate(fd_, static_cast<off_t>(size)); }) != 0) {
    throw write_failed(path_, "truncate");
  }
}

void File::sync() {
  if (retry([&] { return ::fsync(fd_); }) != 0) throw write_failed(path_, "fsync");
}

void File::close() {
  // Linux frees the descriptor even when close() is interrupted: never a second try.
  if (::close(std::exchange(fd_, -1)) != 0 && errno != EINTR) throw write_failed(path_, "close");
}

std::span<const std::byte> File::map() const {
  const struct stat status = status_of(fd_, path_);
  if (!S_ISREG(status.st_mode)) throw bad_file(path_, "is not a regular file");
  const auto size = static_cast<size_t>(status.st_size);
  if (size == 0) return {};
  void* data = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, fd_, 0);
  if (data == MAP_FAILED) throw read_failed(path_, "map");
  return {static_cast<const std::byte*>(data), size};
}

std::string read_text(const std::string& path, uint64_t max_bytes) {
  File file = File::open_read(path);
  std::string text;
  size_t held = 0;
  for (;;) {  // to the end rather than size() bytes: pipes and /proc have no size
    const uint64_t expected = std::min(file.size(), max_bytes) + 1;
    text.resize(std::max<size_t>(held + 65536, expected));
    const size_t n = file.read_next(std::as_writable_bytes(std::span(text).subspan(held)));
    held += n;
    if (held > max_bytes) {
      throw bad_file(path, "is larger than " + std::to_string(max_bytes) + " bytes");
    }
    if (n == 0) break;
  }
  text.resize(held);
  return text;
}

void write_atomically(const std::string& path, std::string_view text) {
  const std::string partial = path + ".partial";
  File file = File::create(partial);
  try {
    file.write(text);
    file.sync();
    file.close();
    rename_file(partial, path);
  } catch (...) {
    remove_all(partial);  // the first error is the one to report
    throw;
  }
  sync_directory(parent_of(path));
}

void write_folder(const std::string& folder,
                  const std::function<void(const std::string& partial)>& fill) {
  try {
    if (exists(folder)) throw std::logic_error("write_folder: " + folder + " exists");
  } catch (const UserError& error) {
    throw cannot_write(folder, error.what());
  }
  const std::string partial = folder.substr(0, folder.find_last_not_of('/') + 1) + ".partial";
  bool named = false;
  try {
    remove_tree(partial);  // of one that was killed
    make_directories(partial);
    fill(partial);
    sync_directory(partial);
    rename_file(partial, folder);
    named = true;
    sync_directory(parent_of(folder));
  } catch (...) {  // the first error is the one to report; the next one removes what is left
    if (named) retry([&] { return ::rename(folder.c_str(), partial.c_str()); });
    remove_all(partial);
    throw;
  }
}

bool exists(const std::string& path) { return look_at(path).has_value(); }

bool is_directory(const std::string& path) {
  const auto status = look_at(path);
  return status && S_ISDIR(status->st_mode);
}

void make_directories(const std::string& path) {
  const std::string parent = parent_of(path);
  const auto make = [&] {
    return retry([&] { return ::mkdir(path.c_str(), 0777); }) == 0 ? 0 : errno;
  };
  int error = make();
  if (error == ENOENT && parent != path) {
    make_directories(parent);
    error = make();
  }
  if (error == 0) {
    sync_directory(parent);  // or a power cut takes it away with all that is in it
  } else if (error != EEXIST || !is_directory(path)) {
    throw cannot_write(path, failed("make the folder", error));
  }
}

std::vector<std::string> list_directory(const std::string& path) {
  std::vector<std::string> names;
  if (const int error = list_names(path, names); error != 0)
    throw bad_file(path, failed("list the folder", error));
  std::sort(names.begin(), names.end());
  return names;
}

void rename_file(const std::string& from, const std::string& to) {
  if (retry([&] { return ::rename(from.c_str(), to.c_str()); }) != 0) {
    throw cannot_write(to, failed(("rename " + from + " to it").c_str(), errno));
  }
}

void exchange_files(const std::string& one, const std::string& other) {
  const auto exchange = [&] {
    return ::renameat2(AT_FDCWD, one.c_str(), AT_FDCWD, other.c_str(), RENAME_EXCHANGE);
  };
  if (retry(exchange) == 0) return;
  if (errno != EINVAL && errno != ENOSYS)
    throw cannot_write(other, failed(("exchange it and " + one).c_str(), errno));
  // A file system that cannot do it at once. Never half of OTHER under its own name.
  const std::string aside = other + ".removed";
  remove_tree(aside);
  rename_file(other, aside);
  rename_file(one, other);
  remove_all(aside);  // what stays costs space only
}

void remove_tree(const std::string& path) {
  if (const int error = remove_all(path); error != 0)
    throw cannot_write(path, failed("remove", error));
}

void sync_directory(const std::string& path) {
  const int fd = open_file(path, O_RDONLY | O_DIRECTORY);
  if (fd < 0) throw write_failed(path, "open the folder");
  const int result = retry([&] { return ::fsync(fd); });
  const int error = errno;
  ::close(fd);
  if (result != 0) throw cannot_write(path, failed("fsync the folder", error));
}

std::string parent_of(const std::string& path) {
  const size_t last = path.find_last_not_of('/');
  if (last == std::string::npos) return path.empty() ? "." : "/";
  const size_t slash = path.rfind('/', last);
  if (slash == std::string::npos) return ".";
  const size_t end = path.find_last_not_of('/', slash);
  return end == std::string::npos ? "/" : path.substr(0, end + 1);
}

std::string join_path(const std::string& folder, const std::string& name) {
  if (folder.empty() || folder.back() == '/') return folder + name;
  return folder + "/" + name;
}

std::unique_ptr<FileLock> FileLock::try_lock(const std::string& path, const std::string& text,
                                             std::string* holder) {
  while (true) {
    const int fd = open_file(path, O_RDWR | O_CREAT);
    if (fd < 0) throw write_failed(path, "open for writing");
    std::unique_ptr<FileLock> lock(new FileLock(fd, path));  // closes fd whatever comes
    if (retry([&] { return ::flock(fd, LOCK_EX | LOCK_NB); }) != 0) {
      if (errno != EWOULDBLOCK) throw write_failed(path, "lock");
      if (holder != nullptr) *holder = holder_text(fd);
      return nullptr;
    }
    // The holder before may have removed the file since it was opened here: such a lock keeps
    // nobody out.
    const auto there = look_at(path);
    const struct stat held = status_of(fd, path);
    if (!there || there->st_dev != held.st_dev || there->st_ino != held.st_ino) continue;
    // The text is for people; the lock itself is the kernel's and ends with the process.
    File file = File::create(path);
    file.write(text);
    file.close();
    return lock;
  }
}

FileLock::~FileLock() {
  if (remove_) ::unlink(path_.c_str());  // while it is held
  ::close(fd_);
}

}  // namespace tandem
