#pragma once
// LITPKDS packed data (lit-gpt, TinyLlama, Samba, ArchScale): PREFIX_0000000000.bin, PREFIX_0000000001.bin, ..., each
//   7 bytes "LITPKDS", u64 version 1, u8 dtype code (as in data/token_index.h), u64 chunk size, then so many tokens, little endian
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "data/token_index.h"

namespace tandem {

/// What the header of one packed chunk says; `path` is for messages. Throws bad_file unless its tokens fill the rest of the file.
struct PackedChunkHeader {
  const TokenDtype* dtype = nullptr;
  int64_t tokens = 0;
};
inline constexpr int64_t kPackedChunkHeaderBytes = 24;
PackedChunkHeader parse_packed_chunk(std::span<const std::byte> file, const std::string& path);

/// Where packed chunks lie, in order.
struct PackedChunks {
  std::string prefix;
  std::vector<std::string> paths;
};
/// The chunks of a prefix, those in a folder, or one chunk that is named itself; nothing where `path` is none of these. Throws bad_file
/// for a chunk that is missing between others and for a folder that holds chunks of several sets.
std::optional<PackedChunks> find_packed_chunks(const std::string& path);

}  // namespace tandem
