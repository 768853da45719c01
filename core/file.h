#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace tandem {

// The one place that touches raw file descriptors. Every return value is checked; what a signal
// interrupts is called again; short reads and writes are continued. Errors are UserErrors: bad_file
// (66) for reading, cannot_write (74) for writing, with path, operation and errno's text.

/// An open file, closed by the destructor. Move-only.
class File {
 public:
  static File open_read(const std::string& path);
  static File create(const std::string& path);       ///< write, truncating what was there
  static File open_append(const std::string& path);  ///< write at the end, created when absent
  File(File&& other) noexcept;
  File& operator=(File&& other) noexcept;
  File(const File&) = delete;
  ~File();

  uint64_t size() const;
  void read_at(uint64_t offset, std::span<std::byte> out)
      const;  ///< exactly out.size() bytes; fewer is "ends after N bytes"
  size_t read_next(std::span<std::byte> out);  ///< what comes next, at most out.size() bytes; 0 at
                                               ///< the end; also from pipes
  void write(std::span<const std::byte> data);
  void write(std::string_view text);
  /// All of it mapped read-only, to be unmapped by the caller (core/mapped_file); a regular file.
  std::span<const std::byte> map() const;
  void truncate(uint64_t size);
  void sync();   ///< fsync
  void close();  ///< checked; the destructor does not report
  const std::string& path() const { return path_; }

 private:
  File(int fd, std::string path) : fd_(fd), path_(std::move(path)) {}
  int fd_ = -1;
  std::string path_;
};

/// The whole file; bad_file when it holds more than `max_bytes`.
std::string read_text(const std::string& path, uint64_t max_bytes = uint64_t{1} << 30);
/// Writes PATH.partial, fsyncs, renames over PATH, fsyncs the folder: a reader sees the old or the
/// new text, never half.
void write_atomically(const std::string& path, std::string_view text);

/// Makes FOLDER whole or not at all: `fill` writes files (and fsyncs them) into FOLDER.partial,
/// emptied first, which is then fsynced and renamed; the parent is fsynced too. After any error
/// neither FOLDER nor FOLDER.partial is left, as far as they can be removed. FOLDER must not exist.
void write_folder(const std::string& folder,
                  const std::function<void(const std::string& partial)>& fill);

bool exists(const std::string& path);        ///< throws bad_file where that cannot be told
bool is_directory(const std::string& path);  ///< likewise
void make_directories(
    const std::string& path);  ///< those that are missing, each fsynced into its parent
std::vector<std::string> list_directory(const std::string& path);  ///< names, sorted
void rename_file(const std::string& from, const std::string& to);
/// Each gets the other's name, in one call where the file system can do that; else ONE becomes
/// OTHER and the other is gone.
void exchange_files(const std::string& one, const std::string& other);
void remove_tree(const std::string& path);  ///< nothing happens when it does not exist
void sync_directory(const std::string& path);
std::string parent_of(const std::string& path);  ///< "." when there is none
std::string join_path(const std::string& folder, const std::string& name);

/// An exclusive flock on PATH (created when absent), held until destroyed or the process ends,
/// whatever its end.
class FileLock {
 public:
  /// nullptr when another process holds it; then `holder` gets the text that process wrote, or
  /// "another process" where there is none yet.
  static std::unique_ptr<FileLock> try_lock(const std::string& path, const std::string& text,
                                            std::string* holder);
  ~FileLock();
  /// The destructor removes the file too, where it can. Who opened it meanwhile then locks the file
  /// of that name that is there by then.
  void remove_at_end() { remove_ = true; }

 private:
  FileLock(int fd, std::string path) : fd_(fd), path_(std::move(path)) {}
  int fd_;
  std::string path_;
  bool remove_ = false;
};

}  // namespace tandem
