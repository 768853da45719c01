#include "data/packed_chunks.h"

#include <algorithm>
#include <cstdio>
#include <map>
#include <string_view>

#include "core/error.h"
#include "core/file.h"
#include "data/raw_values.h"

namespace tandem {
namespace {

constexpr std::string_view kMagic = "LITPKDS";
constexpr size_t kDigits = 10;  // of a chunk's number

bool begins_with_magic(std::span<const std::byte> bytes) {
  return bytes.size() >= kMagic.size() &&
         std::equal(kMagic.begin(), kMagic.end(), reinterpret_cast<const char*>(bytes.data()));
}

std::string chunk_path(const std::string& prefix, size_t number) {
  char tail[32];
  std::snprintf(tail, sizeof tail, "_%010zu.bin", number);
  return prefix + tail;
}

std::string last_component(const std::string& path) {
  return path.substr(path.rfind('/') + 1);  // npos + 1 = 0: all of it
}

/// "books" of "books_0000000007.bin"; nothing for a name of another kind.
std::optional<std::string> set_of(std::string_view name) {
  constexpr std::string_view kSuffix = ".bin";
  constexpr size_t kTail = 1 + kDigits + kSuffix.size();
  if (name.size() <= kTail || !name.ends_with(kSuffix)) return std::nullopt;
  const auto tail = name.substr(name.size() - kTail);
  const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
  if (tail.front() != '_' || !std::all_of(tail.begin() + 1, tail.begin() + 1 + kDigits, is_digit)) {
    return std::nullopt;
  }
  return std::string(name.substr(0, name.size() - kTail));
}

/// The names of chunks in a folder, in order, by set.
std::map<std::string, std::vector<std::string>> chunks_in(const std::string& folder) {
  std::map<std::string, std::vector<std::string>> sets;
  for (const std::string& name : list_directory(folder)) {
    if (const auto set = set_of(name)) sets[*set].push_back(name);
  }
  return sets;
}

PackedChunks all_of(const std::string& prefix, const std::vector<std::string>& names) {
  PackedChunks chunks{prefix, {}};
  for (const std::string& name : names) {
    const std::string next = chunk_path(prefix, chunks.paths.size());
    if (name != last_component(next)) throw bad_file(next, "is missing, " + name + " is there");
    chunks.paths.push_back(next);
  }
  return chunks;
}

bool is_chunk(const std::string& path) {
  File file = File::open_read(path);
  std::byte begin[kMagic.size()];
  if (file.size() < sizeof begin) return false;  // pipes and devices too
  file.read_at(0, begin);
  return begins_with_magic(begin);
}

}  // namespace

PackedChunkHeader parse_packed_chunk(std::span<const std::byte> file, const std::string& path) {
  if (!begins_with_magic(file)) {
    throw bad_file(path, "not a packed chunk (does not begin with LITPKDS)");
  }
  const uint64_t size = file.size();
  if (size < kPackedChunkHeaderBytes) {
    throw bad_file(path, "has " + std::to_string(size) + " bytes, a packed chunk begins with 24");
  }
  const auto version = raw_value<uint64_t>(file, 7);
  if (version != 1) throw bad_file(path, "version " + std::to_string(version) + ", expected 1");
  PackedChunkHeader header;
  header.dtype = &token_dtype_of(raw_value<uint8_t>(file, 15), path);
  const auto tokens = raw_value<uint64_t>(file, 16);
  const uint64_t held = size - kPackedChunkHeaderBytes;
  const auto item_bytes = static_cast<uint64_t>(header.dtype->bytes);
  if (held % item_bytes != 0 || tokens != held / item_bytes) {
    throw bad_file(path, "promises " + std::to_string(tokens) + " tokens of " + header.dtype->name +
                             ", holds " + std::to_string(held) + " bytes of them");
  }
  header.tokens = static_cast<int64_t>(tokens);
  return header;
}

std::optional<PackedChunks> find_packed_chunks(const std::string& path) {
  if (is_directory(path)) {
    const auto sets = chunks_in(path);
    if (sets.empty()) return std::nullopt;
    if (sets.size() > 1) {
      std::string names;
      for (const auto& [set, chunks] : sets) names += (names.empty() ? "" : ", ") + set;
      throw bad_file(path,
                     "holds packed chunks of several sets, name one of them: " + one_line(names));
    }
    return all_of(join_path(path, sets.begin()->first), sets.begin()->second);
  }
  if (exists(path)) {
    if (!is_chunk(path)) return std::nullopt;
    return PackedChunks{token_prefix(path), {path}};
  }
  const std::string folder = parent_of(path);
  if (!is_directory(folder)) return std::nullopt;
  const auto sets = chunks_in(folder);
  const auto found = sets.find(last_component(path));
  if (found == sets.end()) return std::nullopt;
  return all_of(path, found->second);
}

}  // namespace tandem
