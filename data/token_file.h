#pragma once
// Tokens of a data set, from whichever of these formats they lie in:
//   Megatron's indexed dataset   PREFIX.bin and PREFIX.idx (data/token_index.h)
//   LITPKDS packed chunks        PREFIX_0000000000.bin, PREFIX_0000000001.bin, ... (data/packed_chunks.h)
//   headerless                   one file of uint16 or uint32 tokens (nanoGPT, OLMo); documents end with `eos_id`
// Beside PREFIX.bin may lie the weight that each token has in the loss where it is a target, which none of them knows:
//   .weights  f32[tokens], each finite and >= 0, in the order of the tokens; a token of weight 0 is not scored
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/file.h"
#include "core/mapped_file.h"
#include "data/packed_chunks.h"
#include "data/token_index.h"

namespace tandem {

/// Whether PREFIX.weights is opened with a token file.
enum class TargetWeights { kNone, kRead };

/// What is to be opened. A path is PREFIX, PREFIX.bin or PREFIX.idx of an indexed dataset; else PREFIX of packed chunks, a folder with one set of them or one chunk; else, where `dtype` is given, a headerless file.
struct TokenFileSpec {
  std::string path;
  std::optional<std::string> dtype = {};  // uint16 | uint32, of a headerless file; wrong for the others
  std::optional<int64_t> eos_id = {};     // ends each document of headerless files and packed chunks, its last token; absent: all is one document. Wrong for indexed datasets
  TargetWeights weights = TargetWeights::kNone;
};

/// Tokens opened for random reads. Every rule of the format is checked at open; damage is bad_file naming file, place and rule. Safe to read from several threads.
class TokenFile {
 public:
  explicit TokenFile(const TokenFileSpec& spec);
  /// What needs no settings: an indexed dataset, or packed chunks as one document.
  explicit TokenFile(const std::string& prefix, TargetWeights weights = TargetWeights::kNone) : TokenFile(TokenFileSpec{.path = prefix, .weights = weights}) {}
  int64_t documents() const { return static_cast<int64_t>(document_begin_.size()) - 1; }
  int64_t tokens() const { return document_begin_.back(); }
  int64_t document_length(int64_t document) const { return document_begin_[document + 1] - document_begin_[document]; }
  /// First token of each document in file order, and tokens() at the end.
  const std::vector<int64_t>& document_begins() const { return document_begin_; }
  /// Tokens [begin, begin + out.size()) of the file's stream. Throws bad_file for a negative token (signed types can hold one).
  void read(int64_t begin, std::span<int64_t> out) const;
  /// Weights of tokens [begin, begin + out.size()) as targets. Throws bad_file for one that is not finite and >= 0,
  /// std::logic_error when the file was opened without.
  void read_weights(int64_t begin, std::span<float> out) const;
  /// Tokens [begin, begin + n), and their weights where the file was opened with them, are read soon: a disk brings them meanwhile, several such parts side by side. Does not wait.
  void will_read(int64_t begin, int64_t n) const;
  bool has_weights() const { return weights_.has_value(); }
  const char* dtype() const { return dtype_->name; }  ///< "uint16"
  const char* format() const { return format_; }  ///< "indexed", "packed", "headerless"
  const std::string& prefix() const { return prefix_; }  ///< where .weights and .manifest.json lie
  const std::string& path() const { return path_; }  ///< as it was given, for messages
  /// CRC32C over .idx (or the rule that cuts documents), all tokens and, where they were opened, .weights as 8 hex digits; what result files and checkpoints record. Reads all data once.
  std::string content_hash() const;

 private:
  struct Piece {
    MappedFile file;
    int64_t offset = 0;  // byte where its tokens begin
    int64_t begin = 0;   // number of its first token
    int64_t end = 0;
  };
  void open_indexed();
  void open_packed(const PackedChunks& chunks);
  void open_headerless(const std::string& path);
  void open_weights();
  void add_piece(MappedFile file, int64_t offset, int64_t tokens);
  void cut_documents(const TokenFileSpec& spec);
  std::span<const std::byte> bytes_of(const Piece& piece) const;
  void check_range(int64_t begin, size_t count) const;
  template <typename Each>
  void for_each_piece(int64_t begin, int64_t n, const Each& each) const;
  std::string path_, prefix_, rule_;  // rule_: how documents were cut and their type, where no index says it
  const char* format_ = "";
  const TokenDtype* dtype_ = nullptr;
  std::vector<Piece> pieces_;
  std::vector<int64_t> document_begin_;
  std::optional<MappedFile> weights_;
};

}  // namespace tandem
