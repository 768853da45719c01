#include "data/tokenizer.h"

#include <algorithm>

#include "core/checksum.h"
#include "core/error.h"
#include "core/file.h"
#include "data/hf_tokenizer.h"
#include "data/sentencepiece_tokenizer.h"
#include "data/tiktoken.h"
#include "data/utf8.h"

namespace tandem {
namespace {

constexpr size_t kLongestContext = 24, kShortContext = 8;  // tokens a StreamingDecoder looks back

class ByteTokenizer final : public Tokenizer {
 public:
  void append(std::string_view text, Specials, std::vector<int32_t>& ids) const override {
    for (const char c : text) ids.push_back(static_cast<unsigned char>(c));
  }
  std::string decode(std::span<const int32_t> ids) const override {
    std::string bytes;
    for (const int32_t id : ids) {
      if (id == kBos || id == kEos) continue;
      if (id >= 0 && id < kBos) {
        bytes.push_back(static_cast<char>(id));
      } else {
        bytes += kReplacementCharacter;
      }
    }
    return valid_utf8(bytes);
  }
  int64_t vocab_size() const override { return 258; }
  std::optional<int32_t> bos() const override { return kBos; }
  std::optional<int32_t> eos() const override { return kEos; }
  std::optional<int32_t> special_id(std::string_view) const override { return std::nullopt; }
  int64_t byte_length(int32_t id) const override { return id >= 0 && id < kBos ? 1 : 0; }
  std::string model_bytes() const override { return ""; }
  std::string file_name() const override { return ""; }
  std::string name() const override { return "bytes"; }

 private:
  static constexpr int32_t kBos = 256, kEos = 257;
};

/// Where NAME of NAME:PATH ends; npos where the whole is a path.
size_t end_of_name(const std::string& name_or_path) {
  const size_t colon = name_or_path.find(':');
  const bool named = colon < name_or_path.find('/') && !exists(name_or_path);
  return named ? colon : std::string::npos;
}

/// The tokenizer file in a folder.
std::unique_ptr<Tokenizer> load_from_folder(const std::string& folder) {
  const std::string json = join_path(folder, "tokenizer.json");
  const std::string model = join_path(folder, "tokenizer.model");
  const bool has_json = exists(json), has_model = exists(model);
  if (has_json && has_model) {
    throw bad_usage(folder + ": holds tokenizer.json and tokenizer.model; name one of them");
  }
  if (has_json) return load_hf_tokenizer(json);
  if (has_model) return load_sentencepiece(model);
  throw bad_file(folder, "no tokenizer.json or tokenizer.model in this folder");
}

}  // namespace

std::vector<int32_t> Tokenizer::encode(std::string_view text, Specials specials) const {
  std::vector<int32_t> ids;
  append(text, specials, ids);
  return ids;
}

std::string tokenizer_hash(const Tokenizer& tokenizer) {
  // The name ends at its newline, so no other pair gives the same bytes.
  const std::string bytes = tokenizer.file_name() + "\n" + tokenizer.model_bytes();
  return sha256_hex(bytes);
}

std::unique_ptr<Tokenizer> load_tokenizer(const std::string& name_or_path) {
  if (name_or_path == "bytes") return std::make_unique<ByteTokenizer>();
  if (const size_t end = end_of_name(name_or_path); end != name_or_path.npos) {
    return load_tiktoken(name_or_path.substr(end + 1), name_or_path.substr(0, end));
  }
  if (is_directory(name_or_path)) return load_from_folder(name_or_path);
  if (name_or_path.ends_with(".json")) return load_hf_tokenizer(name_or_path);
  constexpr std::string_view tiktoken = ".tiktoken";
  if (name_or_path.ends_with(tiktoken)) {
    const size_t stem = name_or_path.rfind('/') + 1;  // 0 where there is none
    return load_tiktoken(name_or_path,
                         name_or_path.substr(stem, name_or_path.size() - stem - tiktoken.size()));
  }
  return load_sentencepiece(name_or_path);
}

bool tokenizer_exists(const std::string& name_or_path) {
  if (name_or_path == "bytes") return true;
  const size_t end = end_of_name(name_or_path);
  return exists(end == name_or_path.npos ? name_or_path : name_or_path.substr(end + 1));
}

// The first bytes of a character decode to U+FFFD until its last one has come: to one of them, or
// in sentencepiece to one for each byte. A character has at most four bytes, so only the last three
// replacement characters can still turn into something else.
std::string StreamingDecoder::push(int32_t id) {
  ids_.push_back(id);
  const std::string text = tokenizer_.decode(ids_);
  size_t certain = text.size();
  for (int i = 0; i < 3; ++i) {
    if (!std::string_view(text).substr(0, certain).ends_with(kReplacementCharacter)) break;
    certain -= kReplacementCharacter.size();
  }
  if (certain <= printed_) return "";
  std::string out = text.substr(printed_, certain - printed_);
  printed_ = certain;
  if (ids_.size() > kLongestContext) {
    // Go on with a short context, where it gives the end of the same text and reaches back to what
    // is printed (sentencepiece may drop a space at the very beginning).
    const std::vector<int32_t> context(ids_.end() - kShortContext, ids_.end());
    const std::string end = tokenizer_.decode(context);
    const size_t held_back = text.size() - certain;
    if (end.size() > held_back && text.ends_with(end)) {
      ids_ = context;
      printed_ = end.size() - held_back;
    }
  }
  return out;
}

std::string StreamingDecoder::flush() {
  const std::string text = tokenizer_.decode(ids_);
  std::string out = printed_ < text.size() ? text.substr(printed_) : "";
  ids_.clear();
  printed_ = 0;
  return out;
}

}  // namespace tandem
