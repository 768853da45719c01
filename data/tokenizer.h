#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace tandem {

/// Text to ids and back.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  virtual std::vector<int32_t> encode(std::string_view text) const = 0;  ///< no BOS or EOS added
  virtual std::string decode(std::span<const int32_t> ids) const = 0;    ///< control ids give no text
  virtual int64_t vocab_size() const = 0;
  virtual std::optional<int32_t> bos() const = 0;
  virtual std::optional<int32_t> eos() const = 0;
  /// Bytes of text a token stands for, 0 for control ids: what bits per byte needs. A leading "▁" counts as one byte.
  virtual int64_t byte_length(int32_t id) const = 0;
  /// The serialised model, to be copied into checkpoints; empty for the byte tokenizer.
  virtual std::string model_bytes() const = 0;
  virtual std::string name() const = 0;  ///< "bytes", or the path it was read from
};

/// "bytes" gives the byte tokenizer (ids 0-255 are bytes, 256 is BOS, 257 EOS; vocabulary 258 needs no file), anything else a
/// sentencepiece model file. Throws bad_file for a missing or damaged model.
std::unique_ptr<Tokenizer> load_tokenizer(const std::string& name_or_path);

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
