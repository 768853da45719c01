#include "data/tokenizer.h"

#include <sentencepiece_processor.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <exception>

#include "core/error.h"
#include "core/file.h"
#include "data/utf8.h"

namespace tandem {
namespace {

constexpr std::string_view kSpaceMark =
    "\xE2\x96\x81";  // "▁", a space inside sentencepiece's pieces
constexpr size_t kCutBytes = 4096;
constexpr uint64_t kMaxModelBytes = uint64_t{1} << 28;

class ByteTokenizer final : public Tokenizer {
 public:
  std::vector<int32_t> encode(std::string_view text) const override {
    std::vector<int32_t> ids;
    ids.reserve(text.size());
    for (const char c : text) ids.push_back(static_cast<unsigned char>(c));
    return ids;
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
  int64_t byte_length(int32_t id) const override { return id >= 0 && id < kBos ? 1 : 0; }
  std::string model_bytes() const override { return ""; }
  std::string name() const override { return "bytes"; }

 private:
  static constexpr int32_t kBos = 256, kEos = 257;
};

class SentencePieceTokenizer final : public Tokenizer {
 public:
  explicit SentencePieceTokenizer(const std::string& path)
      : path_(path), model_(read_text(path, kMaxModelBytes)) {
    sentencepiece::SetMinLogLevel(3);  // it speaks through our errors only
    if (model_.empty()) throw bad_file(path, "empty, expected a sentencepiece model");
    try {
      check(processor_.LoadFromSerializedProto(model_), "not a sentencepiece model");
      if (processor_.GetPieceSize() < 2)
        throw bad_file(path, "a sentencepiece model without pieces");
      for (size_t i = 0; i < kSpaceMark.size(); ++i) {
        mark_ids_[i] = byte_id(static_cast<unsigned char>(kSpaceMark[i]));
      }
      // Damage can hide from loading and show at the first use. The same probe tells whether the
      // model keeps all text, as those do that `tandem data train-tokenizer` makes.
      const std::string probe = " \n\n  Ab 12,\t\xC3\xA9\xF0\x9F\x98\x80 ";
      const bool exact = decode(encode(probe)) == probe;
      exact_ = exact && mark_ids_[0] >= 0 && mark_ids_[1] >= 0 && mark_ids_[2] >= 0;
      cuttable_ = exact_ && may_cut();
    } catch (const UserError&) {
      throw;
    } catch (const std::exception& error) {
      throw bad_file(path,
                     std::string("a sentencepiece model that does not work: ") + error.what());
    }
  }

  std::vector<int32_t> encode(std::string_view text) const override {
    std::vector<int32_t> ids;
    // A literal "▁" would come back as a space, so exact models spell it in bytes.
    for (size_t mark; exact_ && (mark = text.find(kSpaceMark)) != text.npos;) {
      append(text.substr(0, mark), ids);
      ids.insert(ids.end(), mark_ids_.begin(), mark_ids_.end());
      text.remove_prefix(mark + kSpaceMark.size());
    }
    append(text, ids);
    return ids;
  }

  std::string decode(std::span<const int32_t> ids) const override {
    std::string text;
    std::vector<int> known;
    const auto flush = [&] {
      if (known.empty()) return;
      std::string part;
      check(processor_.Decode(known, &part), "cannot decode");
      text += part;
      known.clear();
    };
    for (const int32_t id : ids) {
      if (in_vocabulary(id)) {
        known.push_back(id);
      } else {  // a model's vocabulary may be padded beyond the tokenizer's
        flush();
        text += kReplacementCharacter;
      }
    }
    flush();
    return valid_utf8(text);
  }

  int64_t vocab_size() const override { return processor_.GetPieceSize(); }
  std::optional<int32_t> bos() const override { return control(processor_.bos_id()); }
  std::optional<int32_t> eos() const override { return control(processor_.eos_id()); }

  int64_t byte_length(int32_t id) const override {
    if (!in_vocabulary(id) || processor_.IsControl(id) || processor_.IsUnknown(id)) return 0;
    if (processor_.IsByte(id)) return 1;
    const std::string& piece = processor_.IdToPiece(id);
    int64_t bytes = static_cast<int64_t>(piece.size());
    for (size_t at = 0; (at = piece.find(kSpaceMark, at)) != piece.npos; at += kSpaceMark.size()) {
      bytes -= static_cast<int64_t>(kSpaceMark.size()) - 1;
    }
    return bytes;
  }

  std::string model_bytes() const override { return model_; }
  std::string name() const override { return path_; }

 private:
  void check(const sentencepiece::util::Status& status, const std::string& what) const {
    if (status.ok()) return;
    std::string reason = status.message();
    if (const size_t place = reason.rfind("] "); place != reason.npos)
      reason.erase(0, place + 2);  // in its source
    std::replace(reason.begin(), reason.end(), '\n', ' ');
    throw bad_file(path_, reason.empty() ? what : what + ": " + reason);
  }
  /// Encodes and appends. The library's BPE takes long text five times slower than short, so where
  /// no piece can span the place before a space, text is cut there; the ids are the same.
  void append(std::string_view text, std::vector<int32_t>& ids) const {
    while (!text.empty()) {
      size_t length = text.size();
      if (cuttable_ && length > kCutBytes) {
        size_t space = text.find(' ', kCutBytes);
        while (space != text.npos && text[space - 1] == ' ') space = text.find(' ', space + 1);
        length = std::min(length, space);
      }
      std::vector<int> part;
      check(processor_.Encode(text.substr(0, length), &part), "cannot encode");
      ids.insert(ids.end(), part.begin(), part.end());
      text.remove_prefix(length);
    }
  }
  /// Whether encode(a) + encode(b) == encode(ab) when b begins with a space and a does not end with
  /// one: no piece holds a space after another character, and scores are BPE's ranks, whole
  /// numbers. (Unigram's sums of log probabilities meet ties that rounding decides, so there the
  /// beginning of a text reaches further; it is fast on long text anyway.)
  bool may_cut() const {
    for (int id = 0; id < processor_.GetPieceSize(); ++id) {
      std::string_view piece = processor_.IdToPiece(id);
      while (piece.starts_with(kSpaceMark)) piece.remove_prefix(kSpaceMark.size());
      const float score = processor_.GetScore(id);
      if (piece.find(kSpaceMark) != piece.npos || score != std::floor(score)) return false;
    }
    return true;
  }
  bool in_vocabulary(int32_t id) const { return id >= 0 && id < processor_.GetPieceSize(); }
  std::optional<int32_t> control(int id) const {
    if (!in_vocabulary(id)) return std::nullopt;
    return id;
  }
  int32_t byte_id(unsigned char byte) const {
    static const char* digits = "0123456789ABCDEF";
    const int id =
        processor_.PieceToId(std::string("<0x") + digits[byte >> 4] + digits[byte & 15] + ">");
    return in_vocabulary(id) && processor_.IsByte(id) ? id : -1;
  }

  std::string path_, model_;
  sentencepiece::SentencePieceProcessor processor_;
  std::array<int32_t, 3> mark_ids_{};
  bool exact_ = false;     // decode(encode(text)) == text
  bool cuttable_ = false;  // may_cut()
};

}  // namespace

std::unique_ptr<Tokenizer> load_tokenizer(const std::string& name_or_path) {
  if (name_or_path == "bytes") return std::make_unique<ByteTokenizer>();
  return std::make_unique<SentencePieceTokenizer>(name_or_path);
}

// The first bytes of a character decode to U+FFFD until its last one has come. A character has at
// most four bytes, so only the last three replacement characters can still turn into something
// else.
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
  if (certain == text.size() && ids_.size() > 16) {
    // Go on with a short context: four tokens hold the last character whole, and something must be
    // printed already, since sentencepiece may drop a space at the very beginning.
    const std::vector<int32_t> context(ids_.end() - 4, ids_.end());
    const size_t context_bytes = tokenizer_.decode(context).size();
    if (context_bytes > 0) {
      ids_ = context;
      printed_ = context_bytes;
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
