#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace tandem {

/// A file's bytes in pieces from front to back, unpacked when its name ends in .gz (zlib, several members too) or .zst.
class UnpackedFile {
 public:
  class Source;  ///< one for each way of packing
  explicit UnpackedFile(const std::string& path);
  UnpackedFile(UnpackedFile&&) noexcept;
  ~UnpackedFile();
  /// The next piece, valid until the next call; empty at the end. Throws bad_file for damaged data and data that ends in the middle.
  std::string_view next();
  uint64_t packed_bytes_read() const;  ///< of the file as it lies on disk: how far reading has come
  /// SHA-256 of the file as it lies on disk, 64 hex digits, as sha256sum gives it; call once, at the end.
  std::string sha256();

 private:
  std::unique_ptr<Source> source_;
};

/// Whether a file's name ends so, in small or capital letters: ".gz".
bool has_ending(std::string_view path, std::string_view ending);
/// The name without .gz or .zst.
std::string unpacked_name(const std::string& path);

}  // namespace tandem
