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
  const std::string& path() const { return path_; }

 private:
  std::span<const std::byte> bytes_;
  std::string path_;
};

}  // namespace tandem
