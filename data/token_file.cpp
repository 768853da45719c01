#include "data/token_file.h"

#include <algorithm>
#include <bit>
#include <cinttypes>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <stdexcept>

#include "core/checksum.h"
#include "core/error.h"

namespace tandem {
namespace {

static_assert(std::endian::native == std::endian::little,
              "token files are read without swapping bytes");

constexpr char kMagic[9] = {'M', 'M', 'I', 'D', 'I', 'D', 'X', 0, 0};
constexpr uint64_t kHeaderBytes = 34;
constexpr size_t kBufferBytes = size_t{1} << 20;

struct Dtype {
  int code;
  int64_t bytes;
  const char* name;
};
constexpr Dtype kDtypes[] = {{1, 1, "uint8"}, {2, 1, "int8"},  {3, 2, "int16"},
                             {4, 4, "int32"}, {5, 8, "int64"}, {8, 2, "uint16"}};

const Dtype* find_dtype(int code) {
  for (const Dtype& dtype : kDtypes) {
    if (dtype.code == code) return &dtype;
  }
  return nullptr;
}

template <typename T>
T get(std::span<const std::byte> bytes, uint64_t offset) {
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof(T));
  return value;
}

template <typename T>
void put(std::vector<std::byte>& bytes, T value) {
  const size_t at = bytes.size();
  bytes.resize(at + sizeof(T));
  std::memcpy(bytes.data() + at, &value, sizeof(T));
}

template <typename T>
void widen(const std::byte* from, std::span<int64_t> out) {
  for (size_t i = 0; i < out.size(); ++i) {
    T token;
    std::memcpy(&token, from + i * sizeof(T), sizeof(T));
    out[i] = token;
  }
}

std::string without_suffix(const std::string& name) {
  for (const char* suffix : {".bin", ".idx"}) {
    if (name.size() > 4 && name.ends_with(suffix)) return name.substr(0, name.size() - 4);
  }
  return name;
}

std::string text(int64_t value) { return std::to_string(value); }
std::string last_component(const std::string& path) {
  return path.substr(path.rfind('/') + 1);  // npos + 1 = 0: all of it
}

}  // namespace

const char* token_dtype_name(int code) {
  const Dtype* dtype = find_dtype(code);
  return dtype == nullptr ? nullptr : dtype->name;
}

TokenIndex parse_token_index(std::span<const std::byte> idx, const std::string& path) {
  const uint64_t size = idx.size();
  if (size < kHeaderBytes) {
    throw bad_file(path, "has " + std::to_string(size) + " bytes, a token index begins with 34");
  }
  if (std::memcmp(idx.data(), kMagic, sizeof kMagic) != 0) {
    throw bad_file(path, "not a token index (does not begin with MMIDIDX)");
  }
  const auto version = get<uint64_t>(idx, 9);
  if (version != 1) throw bad_file(path, "version " + std::to_string(version) + ", expected 1");
  TokenIndex index;
  index.dtype_code = get<uint8_t>(idx, 17);
  const Dtype* dtype = find_dtype(index.dtype_code);
  if (dtype == nullptr) {
    throw bad_file(path, "dtype code " + text(index.dtype_code) +
                             ", expected 1, 2, 3, 4, 5 or 8 (an integer type)");
  }
  index.item_bytes = dtype->bytes;

  const auto sequences = get<uint64_t>(idx, 18);
  const auto entries = get<uint64_t>(idx, 26);
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

  std::vector<int64_t> sequence_begin(sequences + 1, 0);  // in tokens
  const uint64_t lengths = kHeaderBytes, offsets = lengths + 4 * sequences;
  const int64_t most_tokens = std::numeric_limits<int64_t>::max() / index.item_bytes;
  for (uint64_t s = 0; s < sequences; ++s) {
    const int64_t length = get<int32_t>(idx, lengths + 4 * s);
    const auto offset = get<int64_t>(idx, offsets + 8 * s);
    const std::string name = "sequence " + std::to_string(s);
    if (length < 0) throw bad_file(path, name + " has length " + text(length));
    if (offset != sequence_begin[s] * index.item_bytes) {
      throw bad_file(path, name + " begins at byte " + text(offset) + ", expected " +
                               text(sequence_begin[s] * index.item_bytes) +
                               " (sequences lie back to back)");
    }
    if (length > most_tokens - sequence_begin[s]) throw bad_file(path, name + " ends beyond 2^63");
    sequence_begin[s + 1] = sequence_begin[s] + length;
  }

  const uint64_t documents = offsets + 8 * sequences;
  index.document_begin.reserve(entries);
  int64_t previous = 0;
  for (uint64_t d = 0; d < entries; ++d) {
    const auto first = get<int64_t>(idx, documents + 8 * d);
    const std::string name = "document entry " + std::to_string(d) + " is " + text(first);
    if (d == 0 && first != 0) throw bad_file(path, name + ", expected 0");
    if (first < previous)
      throw bad_file(path, name + ", less than the one before (" + text(previous) + ")");
    if (first > static_cast<int64_t>(sequences)) {
      throw bad_file(path, name + ", more than the " + std::to_string(sequences) + " sequences");
    }
    index.document_begin.push_back(sequence_begin[static_cast<size_t>(first)]);
    previous = first;
  }
  if (previous != static_cast<int64_t>(sequences)) {
    throw bad_file(path, "document index ends at " + text(previous) + ", expected " +
                             std::to_string(sequences) + ", the number of sequences");
  }
  return index;
}

TokenFile::TokenFile(const std::string& prefix, TargetWeights weights)
    : prefix_(without_suffix(prefix)),
      index_(parse_token_index(MappedFile(prefix_ + ".idx").bytes(), prefix_ + ".idx")),
      bin_(prefix_ + ".bin") {
  const auto size = static_cast<int64_t>(bin_.bytes().size());
  if (size != tokens() * index_.item_bytes) {
    const bool whole = size % index_.item_bytes == 0;
    const std::string held = whole ? text(size / index_.item_bytes) : text(size) + " bytes";
    throw bad_file(prefix_ + ".idx", "promises " + text(tokens()) + " tokens, " +
                                         last_component(bin_.path()) + " holds " + held +
                                         "; run `tandem data tokenize` again");
  }
  if (weights == TargetWeights::kNone) return;
  weights_.emplace(prefix_ + ".weights");
  const uint64_t expected = static_cast<uint64_t>(tokens()) * sizeof(float);
  if (weights_->bytes().size() != expected) {
    throw bad_file(weights_->path(), "has " + std::to_string(weights_->bytes().size()) +
                                         " bytes, expected " + std::to_string(expected) +
                                         ", a float32 for each token of " +
                                         last_component(bin_.path()));
  }
}

void TokenFile::check_range(int64_t begin, size_t n) const {
  const auto count = static_cast<int64_t>(n);
  if (begin < 0 || count > tokens() || begin > tokens() - count) {
    throw std::logic_error("TokenFile: [" + text(begin) + ", " + text(begin + count) + ") of " +
                           text(tokens()) + " tokens of " + prefix_);
  }
}

void TokenFile::read_weights(int64_t begin, std::span<float> out) const {
  if (!weights_) throw std::logic_error("TokenFile: " + prefix_ + " was opened without weights");
  check_range(begin, out.size());
  for (size_t i = 0; i < out.size(); ++i) {
    const int64_t token = begin + static_cast<int64_t>(i);
    out[i] = get<float>(weights_->bytes(), static_cast<uint64_t>(token) * sizeof(float));
    if (std::isfinite(out[i]) && out[i] >= 0) continue;
    char value[32];
    std::snprintf(value, sizeof value, "%g", static_cast<double>(out[i]));
    throw bad_file(weights_->path(),
                   "weight " + text(token) + " is " + value + ", expected a finite number >= 0");
  }
}

void TokenFile::read(int64_t begin, std::span<int64_t> out) const {
  check_range(begin, out.size());
  if (out.empty()) return;
  const std::byte* from = bin_.bytes().data() + begin * index_.item_bytes;
  switch (index_.dtype_code) {
    case 1:
      return widen<uint8_t>(from, out);
    case 8:
      return widen<uint16_t>(from, out);
    case 2:
      widen<int8_t>(from, out);
      break;
    case 3:
      widen<int16_t>(from, out);
      break;
    case 4:
      widen<int32_t>(from, out);
      break;
    default:
      widen<int64_t>(from, out);
      break;
  }
  for (size_t i = 0; i < out.size(); ++i) {
    if (out[i] < 0) {
      throw bad_file(bin_.path(), "token " + text(begin + static_cast<int64_t>(i)) + " is " +
                                      text(out[i]) + ", expected 0 or more");
    }
  }
}

std::string TokenFile::content_hash() const {
  const MappedFile idx(prefix_ + ".idx");
  uint32_t crc = crc32c(bin_.bytes(), crc32c(idx.bytes()));
  if (weights_) crc = crc32c(weights_->bytes(), crc);
  char hex[9];
  std::snprintf(hex, sizeof hex, "%08" PRIx32, crc);
  return hex;
}

TokenFileWriter::TokenFileWriter(const std::string& prefix, int64_t vocab_size)
    : prefix_(without_suffix(prefix)),
      bin_((make_directories(parent_of(prefix_)), File::create(prefix_ + ".bin.partial"))),
      dtype_(vocab_size < 65500 ? 8 : 4),
      vocab_size_(vocab_size) {}

TokenFileWriter::~TokenFileWriter() {
  if (finished_) return;
  std::remove((prefix_ + ".bin.partial").c_str());
  std::remove((prefix_ + ".idx.partial").c_str());
}

void TokenFileWriter::add_document(std::span<const int32_t> tokens) {
  if (tokens.empty()) {
    ++empty_;
    return;
  }
  if (tokens.size() > static_cast<size_t>(std::numeric_limits<int32_t>::max())) {
    throw cannot_write(bin_.path(), "a document of " + std::to_string(tokens.size()) +
                                        " tokens; the format holds up to 2147483647");
  }
  for (const int32_t token : tokens) {
    if (token < 0 || token >= vocab_size_) {
      throw std::logic_error("TokenFileWriter: token " + text(token) + ", expected 0 to " +
                             text(vocab_size_ - 1));
    }
    if (dtype_ == 8) {
      put(buffer_, static_cast<uint16_t>(token));
    } else {
      put(buffer_, token);
    }
    if (buffer_.size() >= kBufferBytes) {
      bin_.write(buffer_);
      buffer_.clear();
    }
  }
  lengths_.push_back(static_cast<int32_t>(tokens.size()));
  tokens_ += static_cast<int64_t>(tokens.size());
}

void TokenFileWriter::finish() {
  bin_.write(buffer_);
  bin_.sync();
  bin_.close();

  std::vector<std::byte> idx;
  for (const char c : kMagic) put(idx, c);
  put(idx, uint64_t{1});
  put(idx, static_cast<uint8_t>(dtype_));
  put(idx, static_cast<uint64_t>(lengths_.size()));
  put(idx, static_cast<uint64_t>(lengths_.size() + 1));
  for (const int32_t length : lengths_) put(idx, length);
  int64_t offset = 0;
  for (const int32_t length : lengths_) {
    put(idx, offset);
    offset += length * find_dtype(dtype_)->bytes;
  }
  for (int64_t d = 0; d <= documents(); ++d) put(idx, d);
  File index = File::create(prefix_ + ".idx.partial");
  index.write(idx);
  index.sync();
  index.close();

  remove_tree(prefix_ + ".idx");  // an older index never meets the new tokens
  rename_file(prefix_ + ".bin.partial", prefix_ + ".bin");
  rename_file(prefix_ + ".idx.partial", prefix_ + ".idx");
  sync_directory(parent_of(prefix_));
  finished_ = true;
}

}  // namespace tandem
