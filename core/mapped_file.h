#pragma once
#include <cstddef>
#include <span>
#include <string>

namespace tandem {

/// A file mapped read-only. Touching a page that was truncated away meanwhile is a SIGBUS; a handler installed with the first mapping names the file and leaves with 66.
class MappedFile {
 public:
  explicit MappedFile(const std::string& path);
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();
  std::span<const std::byte> bytes() const { return bytes_; }
  /// Bytes [offset, offset + n) are read soon: a disk brings them meanwhile, and no others. Does not wait for it, and nothing depends on it.
  void will_read(size_t offset, size_t n) const;
  const std::string& path() const { return path_; }

 private:
  std::span<const std::byte> bytes_;
  std::string path_;
};

}  // namespace tandem
