#pragma once
// Token files are Megatron's indexed datasets, PREFIX.bin and PREFIX.idx, all little endian and unaligned:
//   .idx  9 bytes "MMIDIDX\0\0", u64 version 1, u8 dtype code (1 u8, 2 i8, 3 i16, 4 i32, 5 i64, 8 u16), u64 S sequences,
//         u64 D document entries, i32[S] lengths, i64[S] byte offsets into .bin, i64[D] document index (0 ... S)
//   .bin  the tokens, back to back
// Beside them may lie the weight that each token has in the loss where it is a target, which Megatron does not know:
//   .weights  f32[tokens], each finite and >= 0, in the order of .bin; a token of weight 0 is not scored
// One document is one sequence in files written here; files of others may split documents into several sequences.
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/file.h"

namespace tandem {

/// "uint16" for 8 and so on; nullptr for a code that does not stand for tokens.
const char* token_dtype_name(int code);

/// What an .idx file says, every rule of the format checked; `path` is for messages.
struct TokenIndex {
  int dtype_code = 0;
  int64_t item_bytes = 0;
  std::vector<int64_t> document_begin;  // first token of each document, and the number of tokens at the end
};
TokenIndex parse_token_index(std::span<const std::byte> idx, const std::string& path);

/// Whether PREFIX.weights is opened with a token file.
enum class TargetWeights { kNone, kRead };

/// A token file opened for random reads. Everything in .idx is checked at open; damage is bad_file naming file, entry and rule.
class TokenFile {
 public:
  /// `prefix` with or without .bin / .idx.
  explicit TokenFile(const std::string& prefix, TargetWeights weights = TargetWeights::kNone);
  int64_t documents() const { return static_cast<int64_t>(index_.document_begin.size()) - 1; }
  int64_t tokens() const { return index_.document_begin.back(); }
  int64_t document_length(int64_t document) const {
    return index_.document_begin[document + 1] - index_.document_begin[document];
  }
  /// First token of each document in file order, and tokens() at the end.
  const std::vector<int64_t>& document_begins() const { return index_.document_begin; }
  /// Tokens [begin, begin + out.size()) of the file's stream. Throws bad_file for a negative token (signed types can hold one).
  void read(int64_t begin, std::span<int64_t> out) const;
  /// Weights of tokens [begin, begin + out.size()) as targets. Throws bad_file for one that is not finite and >= 0,
  /// std::logic_error when the file was opened without.
  void read_weights(int64_t begin, std::span<float> out) const;
  bool has_weights() const { return weights_.has_value(); }
  int dtype_code() const { return index_.dtype_code; }
  const std::string& prefix() const { return prefix_; }
  /// CRC32C over .idx, .bin and, where they were opened, .weights as 8 hex digits; what result files and checkpoints record. Reads all data once.
  std::string content_hash() const;

 private:
  void check_range(int64_t begin, size_t count) const;
  std::string prefix_;
  TokenIndex index_;
  MappedFile bin_;
  std::optional<MappedFile> weights_;
};

/// Writes PREFIX.bin and PREFIX.idx through .partial files; nothing appears under the final names before finish().
class TokenFileWriter {
 public:
  /// uint16 when vocab_size < 65500, else int32 (Megatron's rule).
  TokenFileWriter(const std::string& prefix, int64_t vocab_size);
  ~TokenFileWriter();  ///< removes the .partial files when finish() was not reached
  void add_document(std::span<const int32_t> tokens);  ///< empty documents are skipped and counted
  void finish();
  int64_t documents() const { return static_cast<int64_t>(lengths_.size()); }
  int64_t tokens() const { return tokens_; }
  int64_t skipped_empty() const { return empty_; }

 private:
  std::string prefix_;
  File bin_;
  int dtype_;
  int64_t vocab_size_, tokens_ = 0, empty_ = 0;
  std::vector<int32_t> lengths_;
  std::vector<std::byte> buffer_;
  bool finished_ = false;
};

}  // namespace tandem
