// parse_safetensors_header() on any bytes: a UserError with exit code 66 or entries that tile the
// data and that, written anew, are read again.
#include <cstdint>
#include <cstdlib>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.h"
#include "core/safetensors.h"

namespace {

void require(bool holds) {
  if (!holds) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using tandem::TensorEntry;
  const auto bytes = std::as_bytes(std::span(data, size));
  std::vector<TensorEntry> entries;
  std::map<std::string, std::string> metadata;
  uint64_t data_offset = 0;
  try {
    entries = tandem::parse_safetensors_header(bytes, size, "file", &metadata, &data_offset);
  } catch (const tandem::UserError& error) {
    const std::string_view message = error.what();
    require(error.exit_code() == tandem::kExitBadFile && message.starts_with("file: "));
    require(message.find('\n') == std::string_view::npos);
    return 0;
  }
  uint64_t next = 0;
  for (const TensorEntry& entry : entries) {
    uint64_t needed = static_cast<uint64_t>(tandem::size_of(entry.type));
    for (const int64_t n : entry.shape) needed *= static_cast<uint64_t>(n);
    require(entry.begin == next && entry.bytes() == needed && entry.shape.size() <= 16);
    next = entry.end;
  }
  require(data_offset + next == size);

  const std::string header = tandem::safetensors_header(entries, metadata);  // sorts the entries
  std::map<std::string, std::string> metadata_again;
  const auto again = tandem::parse_safetensors_header(
      std::as_bytes(std::span(header)), header.size() + next, "again", &metadata_again);
  require(again.size() == entries.size() && metadata_again == metadata);
  std::map<std::string, TensorEntry>
      by_name;  // spans of tensors without bytes are equal: no order among them
  for (const TensorEntry& entry : again) by_name[entry.name] = entry;
  for (const TensorEntry& entry : entries) {
    const TensorEntry& other = by_name.at(entry.name);
    require(other.type == entry.type && other.shape == entry.shape && other.begin == entry.begin);
  }
  return 0;
}
