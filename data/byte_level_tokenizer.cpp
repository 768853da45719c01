#include "data/byte_level_tokenizer.h"

#include <stdexcept>
#include <unordered_map>
#include <utility>

#include "data/normal_form.h"
#include "data/token_matcher.h"
#include "data/utf8.h"

namespace tandem {
namespace {

/// Added tokens that are matched in the same text.
class AddedTokens {
 public:
  AddedTokens() = default;
  explicit AddedTokens(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)) {
    std::vector<std::string> contents;
    for (const AddedToken& token : tokens_) {
      contents.push_back(token.content);
      any_plain_ = any_plain_ || !token.special;
    }
    matcher_ = TokenMatcher(contents);
  }

  /// Calls `between(piece)` for what is not a token, none of it empty, and `token(id)`, in the
  /// order of the text. Special tokens that stay text are matched all the same, as Hugging Face
  /// does: no other token begins inside them.
  template <typename Between, typename Token>
  void split(std::string_view text, Specials specials, Between between, Token token) const {
    size_t done = 0;
    if (any_plain_ || (specials == Specials::kAsIds && !tokens_.empty())) {
      size_t from = 0;
      while (const auto match = matcher_.next(text, from)) {
        from = match->begin + match->length;
        const AddedToken& found = tokens_[match->token];
        if (found.special && specials == Specials::kAsText) continue;
        if (match->begin > done) between(text.substr(done, match->begin - done));
        token(found.id);
        done = from;
      }
    }
    if (done < text.size()) between(text.substr(done));
  }

 private:
  std::vector<AddedToken> tokens_;
  TokenMatcher matcher_;
  bool any_plain_ = false;
};

class ByteLevelTokenizer final : public Tokenizer {
 public:
  explicit ByteLevelTokenizer(ByteLevelParts parts) : parts_(std::move(parts)) {
    std::vector<AddedToken> raw, normalized;
    for (AddedToken token : parts_.added) {
      if (token.content.empty() || token.id < 0 || token.id >= parts_.vocab_size) {
        throw std::logic_error("added token " + std::to_string(token.id) + " of " +
                               std::to_string(parts_.vocab_size));
      }
      if (token.special) specials_[token.content] = token.id;
      if (token.normalized && parts_.nfc) token.content = nfc(token.content);
      by_id_[token.id] = token;
      if (!token.written) continue;
      (token.normalized ? normalized : raw).push_back(token);
    }
    in_raw_ = AddedTokens(std::move(raw));
    in_normalized_ = AddedTokens(std::move(normalized));
  }

  void append(std::string_view text, Specials specials, std::vector<int32_t>& ids) const override {
    const auto token = [&](int32_t id) { ids.push_back(id); };
    const std::string valid = valid_utf8(text);
    const auto plain = [&](std::string_view piece) { append_plain(piece, ids); };
    const auto normalised = [&](std::string_view piece) {
      in_normalized_.split(piece, specials, plain, token);
    };
    const auto raw = [&](std::string_view piece) {
      if (parts_.nfc && may_change_in_nfc(piece)) {
        normalised(nfc(piece));
      } else {
        normalised(piece);
      }
    };
    in_raw_.split(valid, specials, raw, token);
  }

  std::string decode(std::span<const int32_t> ids) const override {
    std::string bytes;
    for (const int32_t id : ids) {
      if (const auto added = by_id_.find(id); added != by_id_.end()) {
        if (!added->second.special) bytes += added->second.content;
        continue;
      }
      const std::string_view token = bytes_of(id);
      bytes += token.empty() ? kReplacementCharacter : token;
    }
    return valid_utf8(bytes);
  }

  int64_t vocab_size() const override { return parts_.vocab_size; }
  std::optional<int32_t> bos() const override { return parts_.bos; }
  std::optional<int32_t> eos() const override { return parts_.eos; }
  std::optional<int32_t> special_id(std::string_view text) const override {
    const auto found = specials_.find(std::string(text));
    if (found == specials_.end()) return std::nullopt;
    return found->second;
  }
  int64_t byte_length(int32_t id) const override {
    const auto added = by_id_.find(id);
    if (added == by_id_.end()) return static_cast<int64_t>(bytes_of(id).size());
    return added->second.special ? 0 : static_cast<int64_t>(added->second.content.size());
  }
  std::string model_bytes() const override { return parts_.model_bytes; }
  std::string file_name() const override { return parts_.file_name; }
  std::string name() const override { return parts_.name; }

 private:
  void append_plain(std::string_view text, std::vector<int32_t>& ids) const {
    std::string spaced;
    if (parts_.add_prefix_space && !text.starts_with(' ')) text = spaced = " " + std::string(text);
    while (!text.empty()) {
      const size_t length = pretoken_length(parts_.pattern, text);
      parts_.bpe.append(text.substr(0, length), ids);
      text.remove_prefix(length);
    }
  }
  std::string_view bytes_of(int32_t id) const {
    return id >= 0 && id < parts_.bpe.size() ? parts_.bpe.bytes(id) : std::string_view();
  }

  ByteLevelParts parts_;
  AddedTokens in_raw_, in_normalized_;
  std::unordered_map<int32_t, AddedToken> by_id_;
  std::unordered_map<std::string, int32_t> specials_;
};

}  // namespace

std::unique_ptr<Tokenizer> make_byte_level_tokenizer(ByteLevelParts parts) {
  return std::make_unique<ByteLevelTokenizer>(std::move(parts));
}

}  // namespace tandem
