#include "data/token_index.h"

#include <cstring>
#include <limits>

#include "core/error.h"
#include "data/raw_values.h"

namespace tandem {
namespace {

constexpr char kMagic[9] = {'M', 'M', 'I', 'D', 'I', 'D', 'X', 0, 0};
constexpr uint64_t kVersion = 1;
constexpr uint64_t kHeaderBytes = 34;

constexpr TokenDtype kDtypes[] = {{1, 1, "uint8"}, {2, 1, "int8"},  {3, 2, "int16"},
                                  {4, 4, "int32"}, {5, 8, "int64"}, {8, 2, "uint16"},
                                  {0, 4, "uint32"}};

std::string text(int64_t value) { return std::to_string(value); }

}  // namespace

const TokenDtype* find_token_dtype(int code) {
  for (const TokenDtype& dtype : kDtypes) {
    if (code != 0 && dtype.code == code) return &dtype;
  }
  return nullptr;
}

const TokenDtype* find_token_dtype(std::string_view name) {
  for (const TokenDtype& dtype : kDtypes) {
    if (dtype.name == name) return &dtype;
  }
  return nullptr;
}

const TokenDtype& token_dtype_of(int code, const std::string& path) {
  if (const TokenDtype* dtype = find_token_dtype(code)) return *dtype;
  std::string what = "dtype code " + text(code);
  if (code == 6) what += " is a float (float64 in Megatron, float32 in GPT-NeoX)";
  if (code == 7) what += " is a float (float32 in Megatron, float64 in GPT-NeoX)";
  throw bad_file(path, what + ", expected 1, 2, 3, 4, 5 or 8 (an integer type)");
}

TokenIndex parse_token_index(std::span<const std::byte> idx, const std::string& path) {
  const uint64_t size = idx.size();
  if (size < kHeaderBytes) {
    throw bad_file(path, "has " + std::to_string(size) + " bytes, a token index begins with 34");
  }
  if (std::memcmp(idx.data(), kMagic, sizeof kMagic) != 0) {
    throw bad_file(path, "not a token index (does not begin with MMIDIDX)");
  }
  const auto version = raw_value<uint64_t>(idx, 9);
  if (version != kVersion) {
    throw bad_file(path, "version " + std::to_string(version) + ", expected 1");
  }
  TokenIndex index;
  index.dtype = &token_dtype_of(raw_value<uint8_t>(idx, 17), path);
  const int64_t item_bytes = index.dtype->bytes;

  const auto sequences = raw_value<uint64_t>(idx, 18);
  const auto entries = raw_value<uint64_t>(idx, 26);
  // Each count is bounded by the file's size before it is multiplied.
  const bool fits = sequences <= size / 12 && entries <= size / 8;
  const uint64_t expected = fits ? kHeaderBytes + 12 * sequences + 8 * entries : 0;
  if (fits && sequences > 0 && size == expected + sequences) {
    throw bad_file(path, "index of a multimodal set (it holds modes), expected text");
  }
  if (size != expected) {
    throw bad_file(path, "has " + std::to_string(size) + " bytes, not what " +
                             std::to_string(sequences) + " sequences and " +
                             std::to_string(entries) + " document entries take");
  }
  if (entries == 0) throw bad_file(path, "document index is empty, expected 0 at its start");

  const uint64_t lengths = kHeaderBytes, offsets = lengths + 4 * sequences;
  const auto length_of = [&](uint64_t s) {
    return int64_t{raw_value<int32_t>(idx, lengths + 4 * s)};
  };
  const int64_t most_tokens = std::numeric_limits<int64_t>::max() / item_bytes;
  int64_t begin = 0;  // of sequence s, in tokens
  for (uint64_t s = 0; s < sequences; ++s) {
    const int64_t length = length_of(s);
    const auto offset = raw_value<int64_t>(idx, offsets + 8 * s);
    const auto name = [&] { return "sequence " + std::to_string(s); };
    if (length < 0) throw bad_file(path, name() + " has length " + text(length));
    if (offset != begin * item_bytes) {
      throw bad_file(path, name() + " begins at byte " + text(offset) + ", expected " +
                               text(begin * item_bytes) + " (sequences lie back to back)");
    }
    if (length > most_tokens - begin) throw bad_file(path, name() + " ends beyond 2^63");
    begin += length;
  }

  const uint64_t documents = offsets + 8 * sequences;
  index.document_begin.reserve(entries);
  uint64_t sequence = 0;  // the first of document d
  int64_t token = 0;      // its first
  for (uint64_t d = 0; d < entries; ++d) {
    const auto first = raw_value<int64_t>(idx, documents + 8 * d);
    const auto previous = static_cast<int64_t>(sequence);
    const auto name = [&] { return "document entry " + std::to_string(d) + " is " + text(first); };
    if (d == 0 && first != 0) throw bad_file(path, name() + ", expected 0");
    if (first < previous) {
      throw bad_file(path, name() + ", less than the one before (" + text(previous) + ")");
    }
    if (first > static_cast<int64_t>(sequences)) {
      throw bad_file(path, name() + ", more than the " + std::to_string(sequences) + " sequences");
    }
    for (; sequence < static_cast<uint64_t>(first); ++sequence) token += length_of(sequence);
    index.document_begin.push_back(token);
  }
  if (sequence != sequences) {
    throw bad_file(path, "document index ends at " + std::to_string(sequence) + ", expected " +
                             std::to_string(sequences) + ", the number of sequences");
  }
  return index;
}

std::vector<std::byte> token_index_header(const TokenDtype& dtype, int64_t documents) {
  std::vector<std::byte> header;
  for (const char c : kMagic) append_raw(header, c);
  append_raw(header, kVersion);
  append_raw(header, static_cast<uint8_t>(dtype.code));
  append_raw(header, documents);      // sequences
  append_raw(header, documents + 1);  // document entries
  return header;
}

std::string token_prefix(const std::string& name) {
  for (const char* suffix : {".bin", ".idx"}) {
    if (name.size() > 4 && name.ends_with(suffix)) return name.substr(0, name.size() - 4);
  }
  return name;
}

}  // namespace tandem
