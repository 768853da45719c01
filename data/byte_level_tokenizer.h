#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/byte_bpe.h"
#include "data/pretokenizer.h"
#include "data/tokenizer.h"

namespace tandem {

/// Bounds on what files of vocabularies may hold; no real one comes near them.
constexpr uint64_t kMaxVocabularyFileBytes = uint64_t{1} << 28;
constexpr int32_t kMaxTokenId = 1 << 20;  // one more than the highest
constexpr size_t kMaxTokenBytes = 4096;

/// A token that is matched in the text before all else, longest first.
struct AddedToken {
  std::string content;
  int32_t id = 0;
  bool special = false;     // matched with Specials::kAsIds only; gives no text
  bool normalized = false;  // matched in the normalised text, else in the text as it is
  bool written = true;      // false: known by its name only, and never matched in text
};

/// All that makes a byte-level BPE tokenizer; data/hf_tokenizer and data/tiktoken read it from files.
struct ByteLevelParts {
  ByteBpe bpe;
  SplitPattern pattern = SplitPattern::kGpt2;
  bool nfc = false;               // text is brought to Unicode's normal form C first
  bool add_prefix_space = false;  // a space in front of each piece between added tokens that begins without one
  std::vector<AddedToken> added;
  int64_t vocab_size = 0;  // the highest id and one more, or what the model rounds it up to
  std::optional<int32_t> bos, eos;
  std::string model_bytes, file_name, name;
};

/// added tokens -> normal form -> pre-tokens -> BPE -> ids. The contents of added tokens are different and not empty.
std::unique_ptr<Tokenizer> make_byte_level_tokenizer(ByteLevelParts parts);

}  // namespace tandem
