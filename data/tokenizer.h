#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace tandem {

/// What the text of a special token ("<|endoftext|>", "</s>") becomes where it stands in the text itself. As text, no document can end itself; as ids,
/// a prompt can be written out whole.
enum class Specials { kAsText, kAsIds };

/// Text to ids and back. Safe to call from several threads.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  /// The ids of `text`; no BOS or EOS is added. Bytes that belong to no character are encoded as U+FFFD (the byte tokenizer keeps them).
  std::vector<int32_t> encode(std::string_view text, Specials specials = Specials::kAsText) const;
  /// The same, behind what `ids` holds.
  virtual void append(std::string_view text, Specials specials, std::vector<int32_t>& ids) const = 0;
  virtual std::string decode(std::span<const int32_t> ids) const = 0;    ///< special ids give no text; ids beyond the vocabulary U+FFFD
  virtual int64_t vocab_size() const = 0;
  virtual std::optional<int32_t> bos() const = 0;
  virtual std::optional<int32_t> eos() const = 0;
  /// The special token of that text ("<|endoftext|>", "</s>"), where there is one.
  virtual std::optional<int32_t> special_id(std::string_view text) const = 0;
  /// Bytes of text a token stands for, 0 for special ids: what bits per byte needs. A leading "▁" counts as one byte.
  virtual int64_t byte_length(int32_t id) const = 0;
  /// The model as it was read, to be copied into checkpoints; empty for the byte tokenizer.
  virtual std::string model_bytes() const = 0;
  /// The name under which a copy of it is read as this tokenizer: "tokenizer.model", "tokenizer.json", "cl100k_base.tiktoken"; empty for the byte tokenizer.
  virtual std::string file_name() const = 0;
  virtual std::string name() const = 0;  ///< as it was given: "bytes", a path, or NAME:PATH
};

/// SHA-256 of model_bytes() and file_name(): the same tokenizer, wherever it lies. 64 hex digits.
std::string tokenizer_hash(const Tokenizer& tokenizer);

/// One of
///   bytes            ids 0-255 are bytes, 256 is BOS, 257 EOS; vocabulary 258 needs no file
///   PATH.json        Hugging Face tokenizer.json, byte-level BPE (data/hf_tokenizer.h); a folder means the tokenizer.json or tokenizer.model in it
///   PATH.tiktoken    base64 ranks; the file's name says which pattern and special tokens they go with (data/tiktoken.h), since the file does not
///   NAME:PATH        the same with a name that differs from the file's: llama3:tokenizer.model, yoco_cl100k_base:cl100k_base.tiktoken
///   PATH             a sentencepiece model
/// Throws bad_file for a missing or damaged one, bad_usage for an unknown NAME.
std::unique_ptr<Tokenizer> load_tokenizer(const std::string& name_or_path);

/// Whether the file of such a name is there; "bytes" needs none.
bool tokenizer_exists(const std::string& name_or_path);

/// Prints tokens as text while they come, holding back bytes that do not yet make whole characters.
class StreamingDecoder {
 public:
  explicit StreamingDecoder(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}
  std::string push(int32_t id);  ///< text that became certain; may be empty
  std::string flush();           ///< what was held back
 private:
  const Tokenizer& tokenizer_;
  std::vector<int32_t> ids_;   // since the last certain point
  size_t printed_ = 0;         // bytes of decode(ids_) already given out
};

}  // namespace tandem
