#include "data/sentencepiece_tokenizer.h"

#include <sentencepiece_processor.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <exception>
#include <vector>

#include "core/error.h"
#include "core/file.h"
#include "data/model_check.h"
#include "data/token_matcher.h"
#include "data/utf8.h"

namespace tandem {
namespace {

constexpr std::string_view kSpaceMark =
    "\xE2\x96\x81";  // "▁", a space inside sentencepiece's pieces
constexpr size_t kCutBytes = 4096;
constexpr uint64_t kMaxModelBytes = uint64_t{1} << 28;

class SentencePieceTokenizer final : public Tokenizer {
 public:
  explicit SentencePieceTokenizer(const std::string& path)
      : path_(path), model_(read_text(path, kMaxModelBytes)) {
    sentencepiece::SetMinLogLevel(3);  // it speaks through our errors only
    if (model_.empty()) throw bad_file(path, "empty, expected a sentencepiece model");
    if (model_.starts_with("IQ== 0\n")) {  // how all published ones begin
      throw bad_file(path, "ranks of tiktoken, no sentencepiece model; load it as NAME:" + path +
                               " (llama3, ...)");
    }
    const SentencePieceTraits traits = check_sentencepiece_model(model_, path);
    try {
      check(processor_.LoadFromSerializedProto(model_), "not a sentencepiece model");
      if (processor_.GetPieceSize() < 2)
        throw bad_file(path, "a sentencepiece model without pieces");
      for (size_t i = 0; i < kSpaceMark.size(); ++i) {
        mark_ids_[i] = byte_id(static_cast<unsigned char>(kSpaceMark[i]));
      }
      std::vector<std::string> controls;
      for (int id = 0; id < processor_.GetPieceSize(); ++id) {
        if (!processor_.IsControl(id) || processor_.IdToPiece(id).empty()) continue;
        controls.push_back(processor_.IdToPiece(id));
        control_ids_.push_back(id);
      }
      matcher_ = TokenMatcher(controls);
      // Damage can hide from loading and show at the first use. The same probe tells whether the
      // model keeps text, and whether it puts a space in front, as Llama 2's does.
      const std::string probe = " \n\n  Ab 12,\t\xC3\xA9\xF0\x9F\x98\x80 ";
      const std::vector<int32_t> ids = encode(probe);
      const bool keeps = decode(ids) == probe;
      int64_t added_bytes = -static_cast<int64_t>(probe.size());
      for (const int32_t id : ids) added_bytes += byte_length(id);
      spells_mark_ = traits.from_train_tokenizer && mark_ids_[0] >= 0 && mark_ids_[1] >= 0 &&
                     mark_ids_[2] >= 0;
      puts_space_ = added_bytes == 1;
      cuttable_ =
          keeps && (added_bytes == 0 || puts_space_) && traits.keeps_characters && may_cut();
    } catch (const UserError&) {
      throw;
    } catch (const std::exception& error) {
      throw bad_file(path,
                     std::string("a sentencepiece model that does not work: ") + error.what());
    }
  }

  void append(std::string_view text, Specials specials, std::vector<int32_t>& ids) const override {
    const std::string valid = valid_utf8(text);
    size_t done = 0;
    if (specials == Specials::kAsIds) {
      while (const auto match = matcher_.next(valid, done)) {
        append_plain(std::string_view(valid).substr(done, match->begin - done), ids);
        ids.push_back(control_ids_[match->token]);
        done = match->begin + match->length;
      }
    }
    append_plain(std::string_view(valid).substr(done), ids);
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

  std::optional<int32_t> special_id(std::string_view text) const override {
    const int id = processor_.PieceToId(text);  // of <unk> where there is no such piece
    if (!in_vocabulary(id) || !processor_.IsControl(id)) return std::nullopt;
    return processor_.IdToPiece(id) == text ? std::optional<int32_t>(id) : std::nullopt;
  }

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
  std::string file_name() const override { return "tokenizer.model"; }
  std::string name() const override { return path_; }

 private:
  void check(const sentencepiece::util::Status& status, const std::string& what) const {
    if (status.ok()) return;
    const std::string reason = reason_of(status);
    throw bad_file(path_, reason.empty() ? what : what + ": " + reason);
  }
  static bool ends_with_space(std::string_view text) {
    return text.ends_with(' ') || text.ends_with(kSpaceMark);
  }
  /// Without special tokens.
  void append_plain(std::string_view text, std::vector<int32_t>& ids) const {
    // A literal "▁" would come back as a space, so models that are to keep all text spell it in
    // bytes; the library does not.
    for (size_t mark; spells_mark_ && (mark = text.find(kSpaceMark)) != text.npos;) {
      append_pieces(text.substr(0, mark), ids);
      ids.insert(ids.end(), mark_ids_.begin(), mark_ids_.end());
      text.remove_prefix(mark + kSpaceMark.size());
    }
    append_pieces(text, ids);
  }
  /// Encodes and appends. The library's BPE takes long text five times slower than short, so where
  /// no piece can span the place before a space, text is cut there; the ids are the same.
  void append_pieces(std::string_view text, std::vector<int32_t>& ids) const {
    while (!text.empty()) {
      size_t length = text.size();
      if (cuttable_ && length > kCutBytes) {
        size_t space = text.find(' ', kCutBytes);
        while (space != text.npos && ends_with_space(text.substr(0, space))) {
          space = text.find(' ', space + 1);
        }
        if (space < length - 1) length = space;
      }
      std::vector<int> part;
      check(processor_.Encode(text.substr(0, length), &part), "cannot encode");
      ids.insert(ids.end(), part.begin(), part.end());
      // The space that the library puts in front of the next part is the one that stands there.
      text.remove_prefix(length < text.size() && puts_space_ ? length + 1 : length);
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
  TokenMatcher matcher_;  // of control pieces
  std::vector<int32_t> control_ids_;
  std::array<int32_t, 3> mark_ids_{};
  bool spells_mark_ = false;  // so that decode(encode(text)) == text, byte for byte
  bool puts_space_ = false;   // in front of a text; decoding takes it away
  bool cuttable_ = false;     // append_pieces() may cut
};

}  // namespace

std::string reason_of(const sentencepiece::util::Status& status) {
  std::string reason = status.message();
  if (const size_t place = reason.rfind("] "); place != reason.npos) reason.erase(0, place + 2);
  std::replace(reason.begin(), reason.end(), '\n', ' ');
  return one_line(reason);
}

std::unique_ptr<Tokenizer> load_sentencepiece(const std::string& path) {
  return std::make_unique<SentencePieceTokenizer>(path);
}

}  // namespace tandem
