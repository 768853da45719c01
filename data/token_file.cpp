#include "data/token_file.h"

#include <algorithm>
#include <cinttypes>
#include <cmath>
#include <cstdio>
#include <limits>
#include <stdexcept>
#include <string_view>
#include <utility>

#include "core/checksum.h"
#include "core/error.h"
#include "data/raw_values.h"

namespace tandem {
namespace {

/// Calls f(T{}) with the C++ type of `dtype`.
template <typename F>
auto with_type(const TokenDtype& dtype, F f) {
  switch (dtype.code) {
    case 1:
      return f(uint8_t{});
    case 2:
      return f(int8_t{});
    case 3:
      return f(int16_t{});
    case 4:
      return f(int32_t{});
    case 5:
      return f(int64_t{});
    case 8:
      return f(uint16_t{});
    default:
      return f(uint32_t{});
  }
}

template <typename T>
void widen(std::span<const std::byte> from, std::span<int64_t> out) {
  for (size_t i = 0; i < out.size(); ++i) out[i] = raw_value<T>(from, i * sizeof(T));
}

/// Appends `first` plus the place behind each token `eos`. Most blocks hold none, and a block is
/// looked through with vector instructions.
template <typename T>
void append_ends(std::span<const std::byte> tokens, T eos, int64_t first,
                 std::vector<int64_t>& ends) {
  constexpr size_t kBlock = 128;
  const size_t n = tokens.size() / sizeof(T);
  size_t begin = 0;
  for (; begin + kBlock <= n; begin += kBlock) {
    T block[kBlock];
    std::memcpy(block, tokens.data() + begin * sizeof(T), sizeof block);
    unsigned found = 0;
    for (size_t i = 0; i < kBlock; ++i) found |= static_cast<unsigned>(block[i] == eos);
    for (size_t i = 0; found != 0 && i < kBlock; ++i) {
      if (block[i] == eos) ends.push_back(first + static_cast<int64_t>(begin + i + 1));
    }
  }
  for (; begin < n; ++begin) {
    if (raw_value<T>(tokens, begin * sizeof(T)) == eos) {
      ends.push_back(first + static_cast<int64_t>(begin + 1));
    }
  }
}

std::string text(int64_t value) { return std::to_string(value); }
std::string last_component(const std::string& path) {
  return path.substr(path.rfind('/') + 1);  // npos + 1 = 0: all of it
}

/// Files that hold something before their tokens, and what to do about it.
void refuse_header(const MappedFile& file) {
  constexpr struct {
    std::string_view begin;
    const char* what;
  } kHeaders[] = {
      {"MMIDIDX",
       "begins with MMIDIDX: it is the index of an indexed dataset; name it .idx beside its "
       ".bin and give their prefix, without dtype"},
      {"\x93NUMPY",
       "begins with a header of NumPy: write the tokens alone, with numpy.ndarray.tofile"},
      {"\x88\xd8\x34\x01",
       "begins with a header of llm.c: cut off its 1024 bytes"},  // GPT-2's, 20240520
      {"\xa1\xd9\x34\x01",
       "begins with a header of llm.c: cut off its 1024 bytes"},  // Llama 3's, 20240801
  };
  const std::string_view bytes(reinterpret_cast<const char*>(file.bytes().data()),
                               file.bytes().size());
  for (const auto& header : kHeaders) {
    if (bytes.starts_with(header.begin)) throw bad_file(file.path(), header.what);
  }
}

UserError nothing_fits(const std::string& path) {
  const std::string prefix = token_prefix(path);
  const std::string hint = "; a headerless file needs its dtype, uint16 or uint32";
  if (is_directory(path)) {
    return bad_file(path, "is a folder without packed chunks (NAME_0000000000.bin)");
  }
  if (exists(path)) {
    return bad_file(path, "has no " + last_component(prefix) +
                              ".idx beside it and does not begin with LITPKDS" + hint);
  }
  if (exists(prefix + ".bin")) {
    return bad_file(prefix + ".bin", "has no " + last_component(prefix) + ".idx beside it" + hint);
  }
  return bad_file(path, "no tokens: looked for " + prefix + ".idx (indexed dataset), " + path +
                            "_0000000000.bin (packed chunks) and " + path + " itself");
}

}  // namespace

TokenFile::TokenFile(const TokenFileSpec& spec)
    : path_(spec.path), prefix_(token_prefix(spec.path)) {
  if (spec.path.ends_with(".idx") || exists(prefix_ + ".idx")) {
    const char* said_twice = spec.dtype && spec.eos_id ? "dtype and eos_id"
                             : spec.dtype              ? "dtype"
                             : spec.eos_id             ? "eos_id"
                                                       : nullptr;
    if (said_twice != nullptr) {
      throw bad_usage(spec.path + ": an indexed dataset knows its type and documents; remove " +
                      said_twice);
    }
    open_indexed();
  } else if (const auto chunks = find_packed_chunks(spec.path)) {
    if (spec.dtype) throw bad_usage(spec.path + ": packed chunks know their type; remove dtype");
    open_packed(*chunks);
    cut_documents(spec);
  } else if (spec.dtype) {
    if (*spec.dtype != "uint16" && *spec.dtype != "uint32") {
      throw bad_usage(spec.path + ": dtype " + one_line(*spec.dtype) +
                      ", expected uint16 or uint32");
    }
    dtype_ = find_token_dtype(*spec.dtype);
    open_headerless(spec.path);
    cut_documents(spec);
  } else {
    throw nothing_fits(spec.path);
  }
  if (spec.weights == TargetWeights::kRead) open_weights();
}

void TokenFile::open_indexed() {
  format_ = "indexed";
  const std::string path = prefix_ + ".idx";
  TokenIndex index = parse_token_index(MappedFile(path).bytes(), path);
  dtype_ = index.dtype;
  document_begin_ = std::move(index.document_begin);
  MappedFile bin(prefix_ + ".bin");
  const auto size = static_cast<int64_t>(bin.bytes().size());
  if (size != tokens() * dtype_->bytes) {
    const bool whole = size % dtype_->bytes == 0;
    const std::string held = whole ? text(size / dtype_->bytes) : text(size) + " bytes";
    throw bad_file(path, "promises " + text(tokens()) + " tokens, " + last_component(bin.path()) +
                             " holds " + held + "; run `tandem data tokenize` again");
  }
  add_piece(std::move(bin), 0, tokens());
}

void TokenFile::open_packed(const PackedChunks& chunks) {
  format_ = "packed";
  prefix_ = chunks.prefix;
  for (const std::string& path : chunks.paths) {
    MappedFile file(path);
    const PackedChunkHeader header = parse_packed_chunk(file.bytes(), path);
    if (dtype_ == nullptr) dtype_ = header.dtype;
    if (header.dtype != dtype_) {
      throw bad_file(path, std::string("holds ") + header.dtype->name + ", " +
                               last_component(chunks.paths.front()) + " holds " + dtype_->name);
    }
    add_piece(std::move(file), kPackedChunkHeaderBytes, header.tokens);
  }
}

void TokenFile::open_headerless(const std::string& path) {
  format_ = "headerless";
  MappedFile file(path);
  refuse_header(file);
  const auto size = static_cast<int64_t>(file.bytes().size());
  if (size % dtype_->bytes != 0) {
    throw bad_file(path, "has " + text(size) + " bytes, not a multiple of " + text(dtype_->bytes) +
                             " (" + dtype_->name + ")");
  }
  add_piece(std::move(file), 0, size / dtype_->bytes);
}

void TokenFile::open_weights() {
  weights_.emplace(prefix_ + ".weights");
  const uint64_t expected = static_cast<uint64_t>(tokens()) * sizeof(float);
  if (weights_->bytes().size() == expected) return;
  const std::string whose = pieces_.size() == 1 ? pieces_.front().file.path() : prefix_;
  throw bad_file(weights_->path(), "has " + std::to_string(weights_->bytes().size()) +
                                       " bytes, expected " + std::to_string(expected) +
                                       ", a float32 for each token of " + last_component(whose));
}

void TokenFile::add_piece(MappedFile file, int64_t offset, int64_t tokens) {
  const int64_t begin = pieces_.empty() ? 0 : pieces_.back().end;
  pieces_.push_back({std::move(file), offset, begin, begin + tokens});
}

void TokenFile::cut_documents(const TokenFileSpec& spec) {
  rule_ = std::string(dtype_->name) +
          (spec.eos_id ? ", documents end with " + text(*spec.eos_id) : ", one document");
  document_begin_ = {0};
  if (spec.eos_id) {
    with_type(*dtype_, [&]<typename T>(T) {
      constexpr T kMost = std::numeric_limits<T>::max();
      if (!std::in_range<T>(*spec.eos_id) || *spec.eos_id < 0) {
        throw bad_usage(spec.path + ": eos_id " + text(*spec.eos_id) + ", " + dtype_->name +
                        " holds 0 to " + std::to_string(kMost));
      }
      const T eos = static_cast<T>(*spec.eos_id);
      for (const Piece& piece : pieces_) {
        append_ends(bytes_of(piece), eos, piece.begin, document_begin_);
      }
    });
  }
  const int64_t end = pieces_.back().end;
  if (document_begin_.back() < end) document_begin_.push_back(end);  // a tail without eos
}

std::span<const std::byte> TokenFile::bytes_of(const Piece& piece) const {
  return piece.file.bytes().subspan(static_cast<size_t>(piece.offset));
}

void TokenFile::check_range(int64_t begin, size_t n) const {
  const auto count = static_cast<int64_t>(n);
  if (begin < 0 || count < 0 || count > tokens() || begin > tokens() - count) {
    throw std::logic_error("TokenFile: [" + text(begin) + ", " + text(begin + count) + ") of " +
                           text(tokens()) + " tokens of " + prefix_);
  }
}

void TokenFile::read_weights(int64_t begin, std::span<float> out) const {
  if (!weights_) throw std::logic_error("TokenFile: " + prefix_ + " was opened without weights");
  check_range(begin, out.size());
  for (size_t i = 0; i < out.size(); ++i) {
    const int64_t token = begin + static_cast<int64_t>(i);
    out[i] = raw_value<float>(weights_->bytes(), static_cast<uint64_t>(token) * sizeof(float));
    if (std::isfinite(out[i]) && out[i] >= 0) continue;
    char value[32];
    std::snprintf(value, sizeof value, "%g", static_cast<double>(out[i]));
    throw bad_file(weights_->path(),
                   "weight " + text(token) + " is " + value + ", expected a finite number >= 0");
  }
}

/// Calls each(piece, from, n) for tokens [begin, begin + n) of the stream: n from the piece's token
/// `from` on.
template <typename Each>
void TokenFile::for_each_piece(int64_t begin, int64_t n, const Each& each) const {
  auto piece = std::upper_bound(pieces_.begin(), pieces_.end(), begin,
                                [](int64_t token, const Piece& p) { return token < p.end; });
  const int64_t end = begin + n;
  for (; begin < end; ++piece) {
    each(*piece, begin - piece->begin, std::min(end, piece->end) - begin);
    begin = piece->end;
  }
}

void TokenFile::read(int64_t begin, std::span<int64_t> out) const {
  check_range(begin, out.size());
  for_each_piece(begin, std::ssize(out), [&](const Piece& piece, int64_t from, int64_t n) {
    const auto part = out.first(static_cast<size_t>(n));
    const auto bytes = bytes_of(piece).subspan(static_cast<size_t>(from * dtype_->bytes));
    with_type(*dtype_, [&]<typename T>(T) {
      widen<T>(bytes, part);
      if (std::is_unsigned_v<T>) return;
      for (size_t i = 0; i < part.size(); ++i) {
        if (part[i] >= 0) continue;
        throw bad_file(piece.file.path(), "token " + text(from + static_cast<int64_t>(i)) + " is " +
                                              text(part[i]) + ", expected 0 or more");
      }
    });
    out = out.subspan(part.size());
  });
}

void TokenFile::will_read(int64_t begin, int64_t n) const {
  check_range(begin, static_cast<size_t>(n));
  for_each_piece(begin, n, [&](const Piece& piece, int64_t from, int64_t part) {
    piece.file.will_read(static_cast<size_t>(piece.offset + from * dtype_->bytes),
                         static_cast<size_t>(part * dtype_->bytes));
  });
  if (!weights_) return;
  weights_->will_read(static_cast<size_t>(begin) * sizeof(float),
                      static_cast<size_t>(n) * sizeof(float));
}

std::string TokenFile::content_hash() const {
  uint32_t crc = rule_.empty() ? crc32c(MappedFile(prefix_ + ".idx").bytes())
                               : crc32c(std::as_bytes(std::span(rule_)));
  for (const Piece& piece : pieces_) crc = crc32c(bytes_of(piece), crc);
  if (weights_) crc = crc32c(weights_->bytes(), crc);
  char hex[9];
  std::snprintf(hex, sizeof hex, "%08" PRIx32, crc);
  return hex;
}

}  // namespace tandem
