#pragma once
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/file.h"

namespace tandem {

// safetensors: u64 header length, a JSON header padded with spaces to 8 bytes, then the data, little endian, without gaps.

enum class DataType { kBool, kU8, kI8, kF8E5M2, kF8E4M3, kI16, kU16, kF16, kBF16, kI32, kU32, kF32, kF64, kI64, kU64 };
int64_t size_of(DataType type);            ///< bytes of one element
const char* name_of(DataType type);        ///< as in files: "F32", "BF16"

/// One tensor of a file.
struct TensorEntry {
  std::string name;
  DataType type = DataType::kF32;
  std::vector<int64_t> shape;
  uint64_t begin = 0, end = 0;  // bytes from the start of the data
  uint64_t bytes() const { return end - begin; }
};

/// Checks a header strictly and returns its entries sorted by begin: length, '{', UTF-8, duplicate keys, known types, rank <= 16,
/// products without overflow, spans that tile the data exactly, at most 100,000 tensors and 100,000,000 bytes of header.
/// `file_size` is the whole file's. Throws bad_file(path, ...) naming the tensor and the rule.
std::vector<TensorEntry> parse_safetensors_header(std::span<const std::byte> first_bytes, uint64_t file_size, const std::string& path,
                                                  std::map<std::string, std::string>* metadata = nullptr, uint64_t* data_offset = nullptr);

/// Reads tensors of one file; only the header is read at construction.
class SafetensorsReader {
 public:
  explicit SafetensorsReader(const std::string& path);
  const std::vector<TensorEntry>& entries() const { return entries_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  const TensorEntry* find(const std::string& name) const;
  /// The bytes [begin, end) of one tensor, counted from its own start; `out` has end - begin bytes.
  void read(const TensorEntry& entry, uint64_t begin, std::span<std::byte> out) const;
  const std::string& path() const { return file_.path(); }

 private:
  File file_;
  std::vector<TensorEntry> entries_;
  std::map<std::string, size_t> by_name_;
  std::map<std::string, std::string> metadata_;
  uint64_t data_offset_ = 0;
};

/// What will be written: shapes first, then the data in the order of `order()`.
class SafetensorsWriter {
 public:
  /// Lays `tensors` out (name, type, shape; spans are filled in) by type, largest alignment as the reference orders it, then by name,
  /// creates `path` and writes the header. Metadata always holds {"format": "pt"}.
  SafetensorsWriter(const std::string& path, std::vector<TensorEntry> tensors, std::map<std::string, std::string> metadata = {});
  const std::vector<TensorEntry>& order() const { return entries_; }
  /// The next tensor's bytes, in order(); may come in pieces. Throws std::logic_error on more bytes than the tensor has.
  void write(std::span<const std::byte> data);
  /// CRC32C of each finished tensor's bytes, in order().
  const std::vector<uint32_t>& checksums() const { return checksums_; }
  uint32_t file_checksum() const { return file_checksum_; }
  uint64_t file_size() const { return written_; }
  void finish();  ///< fsync and close; throws std::logic_error when bytes are missing

 private:
  void next_tensor();
  File file_;
  std::vector<TensorEntry> entries_;
  std::vector<uint32_t> checksums_;
  size_t current_ = 0;
  uint64_t in_tensor_ = 0, written_ = 0;
  uint32_t tensor_checksum_ = 0, file_checksum_ = 0;
};

/// The header bytes alone, length field included (tests, and files written in another way).
std::string safetensors_header(std::vector<TensorEntry>& tensors, const std::map<std::string, std::string>& metadata);

}  // namespace tandem
