#include "data/model_check.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <map>
#include <optional>
#include <stdexcept>
#include <vector>

#include "core/error.h"
#include "core/json_lines.h"
#include "data/utf8.h"

// A model is a protocol buffer, sentencepiece_model.proto: ModelProto {pieces = 1, trainer_spec =
// 2, normalizer_spec = 3, self_test_data = 4, denormalizer_spec = 5}. On the wire a message is a
// row of fields: varint of number * 8 + wire type, then a varint (type 0), 8 bytes (1), a varint of
// n and n bytes (2), or 4 bytes (5).

namespace tandem {
namespace {

constexpr size_t kMostPieces = size_t{1} << 20, kLongestPiece = 1024;
constexpr size_t kMostNestedSymbols = 64;  // the room that the library has for matches
constexpr size_t kLargestCharsmap = size_t{1} << 24, kMostNestedRules = 32, kLongestKey = 256,
                 kLongestText = 256;

std::string str(uint64_t value) { return std::to_string(value); }

[[noreturn]] void fail(const std::string& rule) { throw std::runtime_error(rule); }

enum WireType { kVarint = 0, kEightBytes = 1, kBytes = 2, kFourBytes = 5 };

/// One field of a message.
struct Field {
  uint64_t number = 0;
  int type = 0;
  uint64_t value = 0;      // of the numbers
  std::string_view bytes;  // of kBytes
};

/// The fields of one message in order.
class Message {
 public:
  /// `begin`: the start of the whole model, to tell places.
  Message(std::string_view bytes, const char* begin) : rest_(bytes), begin_(begin) {}

  std::optional<Field> next() {
    if (rest_.empty()) return std::nullopt;
    place_ = rest_.data();
    const uint64_t tag = varint();
    Field field;
    field.number = tag >> 3;
    field.type = static_cast<int>(tag & 7);
    switch (field.type) {
      case kVarint:
        field.value = varint();
        break;
      case kEightBytes:
        field.value = fixed(8);
        break;
      case kBytes:
        field.bytes = take(varint());
        break;
      case kFourBytes:
        field.value = fixed(4);
        break;
      default:
        damaged("a field of wire type " + str(tag & 7) + ", expected 0, 1, 2 or 5");
    }
    if (field.number == 0) damaged("field number 0");
    return field;
  }
  /// Throws unless the field at hand is of the type that its number is known by.
  void expect(const Field& field, WireType type) const {
    if (field.type != type)
      damaged("field " + str(field.number) + " has wire type " +
              str(static_cast<uint64_t>(field.type)) + ", expected " + str(type));
  }

 private:
  [[noreturn]] void damaged(const std::string& rule) const {
    fail("not a sentencepiece model (byte " + str(static_cast<uint64_t>(place_ - begin_)) + ": " +
         rule + ")");
  }
  std::string_view take(uint64_t n) {
    if (n > rest_.size()) damaged("a field that ends behind its message");
    const std::string_view out = rest_.substr(0, n);
    rest_.remove_prefix(n);
    return out;
  }
  uint64_t fixed(size_t n) {
    uint64_t value = 0;
    std::memcpy(&value, take(n).data(), n);
    return value;
  }
  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<unsigned char>(take(1)[0]);
      value |= uint64_t{byte & 0x7fu} << shift;
      if (byte < 0x80) return value;
    }
    damaged("a number of more than 10 bytes");
  }

  std::string_view rest_;
  const char *begin_, *place_ = nullptr;
};

struct Piece {
  std::string_view text;
  bool user_defined = false;
};

Piece check_piece(Message message, uint64_t number) {
  enum { kText = 1, kScore = 2, kType = 3 };
  const std::string name = "piece " + str(number);
  Piece piece;
  while (const auto field = message.next()) {
    if (field->number == kText) {
      message.expect(*field, kBytes);
      piece.text = field->bytes;
      if (piece.text.size() > kLongestPiece)
        fail(name + " has " + str(piece.text.size()) + " bytes, expected at most " +
             str(kLongestPiece));
      if (valid_utf8_prefix(piece.text) != piece.text.size()) fail(name + " is not UTF-8");
      if (piece.text.find('\0') != piece.text.npos) fail(name + " holds a NUL");
    } else if (field->number == kScore) {
      message.expect(*field, kFourBytes);
      const auto score = std::bit_cast<float>(static_cast<uint32_t>(field->value));
      if (!std::isfinite(score))
        fail(name + " has score " +
             (std::isnan(score) ? "nan"
              : score > 0       ? "inf"
                                : "-inf") +
             ", expected a finite number");
    } else if (field->number == kType) {
      message.expect(*field, kVarint);
      if (field->value < 1 || field->value > 6)
        fail(name + " is of type " + str(field->value) + ", expected 1 to 6");
      piece.user_defined = field->value == 4;
    }
  }
  return piece;
}

/// Throws where the library's 64 places for the user-defined pieces that one text begins with do
/// not suffice.
void check_nesting(std::vector<std::string_view> symbols) {
  std::sort(symbols.begin(), symbols.end());
  std::vector<std::string_view> around;  // each begins the next
  for (const std::string_view symbol : symbols) {
    while (!around.empty() && !symbol.starts_with(around.back())) around.pop_back();
    around.push_back(symbol);
    if (around.size() > kMostNestedSymbols)
      fail("user-defined piece " + json_string(symbol, 80) + " begins with " +
           str(around.size() - 1) + " others, expected fewer than " + str(kMostNestedSymbols));
  }
}

/// The double array of darts-clone that a charsmap's keys are in. A unit that is not a value holds
/// the byte that leads to it and the place of those after it; bit 8 says that a key ends here,
/// whose value is the first of them.
class Trie {
 public:
  Trie(std::string_view bytes, size_t n_text_bytes)
      : units_(bytes.size() / 4), below_(units_.size()), n_text_bytes_(n_text_bytes) {
    std::memcpy(units_.data(), bytes.data(), units_.size() * 4);
  }
  void check() { below(0, 0); }

 private:
  struct Below {
    uint16_t height = 0;  // bytes of the longest way on from here
    uint16_t keys = 0;    // most keys that end on one way from here, this one's own included
    bool known = false;
  };

  static uint32_t label(uint32_t unit) { return unit & 0x800000ffu; }  // no byte, for a value
  static uint32_t offset(uint32_t unit) { return (unit >> 10) << ((unit & 0x200u) >> 6); }

  /// Walks all ways on from a unit. Ways may meet, as in an automaton, but not come back: that
  /// would be a key without end.
  Below below(uint32_t at, size_t depth) {
    if (below_[at].known && depth + below_[at].height <= kLongestKey) return below_[at];
    if (depth > kLongestKey) fail("a key of more than " + str(kLongestKey) + " bytes");
    const uint32_t first = at ^ offset(units_[at]);
    if ((first | 0xff) >= units_.size())
      fail("unit " + str(at) + " leads to unit " + str(first) + " of " + str(units_.size()));
    const bool ends = at != 0 && (units_[at] & 0x100u) != 0;
    if (ends) {
      const uint32_t value = units_[first] & 0x7fffffffu;
      if (value >= n_text_bytes_)
        fail("unit " + str(first) + " has the text at byte " + str(value) + " of " +
             str(n_text_bytes_));
    }
    Below all{.height = 0, .keys = 0, .known = true};
    for (uint32_t byte = 0; byte < 256; ++byte) {
      if (label(units_[first ^ byte]) != byte) continue;
      const Below one = below(first ^ byte, depth + 1);
      all.height = std::max<uint16_t>(all.height, static_cast<uint16_t>(one.height + 1));
      all.keys = std::max(all.keys, one.keys);
    }
    all.keys = static_cast<uint16_t>(all.keys + (ends ? 1 : 0));
    if (all.keys > kMostNestedRules)
      fail("more than " + str(kMostNestedRules) + " keys that begin each other");
    return below_[at] = all;
  }

  std::vector<uint32_t> units_;
  std::vector<Below> below_;
  size_t n_text_bytes_;
};

/// u32 size of the trie, the trie, texts that end with NUL; the library checks no more than these
/// three.
void check_charsmap(std::string_view map) {
  if (map.empty()) return;
  if (map.size() > kLargestCharsmap)
    fail("has " + str(map.size()) + " bytes, expected at most " + str(kLargestCharsmap));
  uint32_t size = 0;
  if (map.size() < sizeof size) fail("has " + str(map.size()) + " bytes, expected at least 4");
  std::memcpy(&size, map.data(), sizeof size);
  map.remove_prefix(sizeof size);
  if (size == 0 || size % 1024 != 0 || size >= map.size()) {
    fail("promises a trie of " + str(size) +
         " bytes, expected a multiple of 1024 with texts behind it in " + str(map.size()) +
         " bytes");
  }
  const std::string_view texts = map.substr(size);
  if (texts.back() != '\0') fail("its last text does not end");
  for (size_t begin = 0; begin < texts.size();) {
    const size_t end = texts.find('\0', begin);
    if (end - begin > kLongestText)
      fail("a text of " + str(end - begin) + " bytes, expected at most " + str(kLongestText));
    begin = end + 1;
  }
  Trie(map.substr(0, size), texts.size()).check();
}

/// What a specification says, the last of a number, as the library reads it.
struct Settings {
  std::map<uint64_t, uint64_t> numbers;
  std::map<uint64_t, std::string_view> texts;

  void take(const Field& field) {
    if (field.type == kVarint) numbers[field.number] = field.value;
    if (field.type == kBytes) texts[field.number] = field.bytes;
  }
  bool has(uint64_t field, uint64_t value) const {
    const auto found = numbers.find(field);
    return found != numbers.end() && found->second == value;
  }
};

enum NormalizerField {
  kCharsmap = 2,
  kAddDummyPrefix = 3,
  kRemoveExtraWhitespaces = 4,
  kEscapeWhitespaces = 5
};

void check_normalizer(Message message, const std::string& name, Settings& settings) {
  while (const auto field = message.next()) {
    settings.take(*field);
    if (field->number != kCharsmap) continue;
    message.expect(*field, kBytes);
    try {
      check_charsmap(field->bytes);
    } catch (const std::runtime_error& error) {
      fail(name + ".precompiled_charsmap: " + error.what());
    }
  }
}

void check_trainer(Message message, Settings& settings) {
  enum { kModelType = 3 };
  while (const auto field = message.next()) {
    settings.take(*field);
    if (field->number != kModelType) continue;
    message.expect(*field, kVarint);
    if (field->value < 1 || field->value > 4)
      fail("model type " + str(field->value) +
           ", expected 1 (unigram), 2 (bpe), 3 (word) or 4 (char)");
  }
}

bool keeps_characters(const Settings& normalizer) {
  const auto charsmap = normalizer.texts.find(kCharsmap);
  return (charsmap == normalizer.texts.end() || charsmap->second.empty()) &&
         !normalizer.has(kEscapeWhitespaces, 0);
}

/// Whether the settings are those of data/tokenizer_trainer.cpp.
bool from_train_tokenizer(const Settings& trainer, const Settings& normalizer) {
  enum { kInput = 1, kModelPrefix = 2 };
  static const std::map<uint64_t, uint64_t> given = {
      {18, 4096},          // max_sentence_length; 4192 where none is given
      {25, 1},             // split_digits
      {26, 1},             // allow_whitespace_only_pieces
      {33, 0},             // hard_vocab_limit
      {35, 1},             // byte_fallback
      {40, 0},             // unk_id
      {41, 1},             // bos_id
      {42, 2},             // eos_id
      {43, ~uint64_t{0}},  // pad_id, -1
  };
  return std::all_of(given.begin(), given.end(),
                     [&](const auto& each) { return trainer.has(each.first, each.second); }) &&
         !trainer.texts.contains(kInput) && !trainer.texts.contains(kModelPrefix) &&
         keeps_characters(normalizer) && normalizer.has(kAddDummyPrefix, 0) &&
         normalizer.has(kRemoveExtraWhitespaces, 0);
}

SentencePieceTraits check_model(std::string_view model) {
  enum { kPieces = 1, kTrainer = 2, kNormalizer = 3, kDenormalizer = 5 };
  Message message(model, model.data());
  Settings trainer, normalizer, denormalizer;
  uint64_t n_pieces = 0;
  std::vector<std::string_view> user_defined;
  while (const auto field = message.next()) {
    if (field->number > kDenormalizer) continue;  // extensions
    message.expect(*field, kBytes);
    const Message inner(field->bytes, model.data());
    if (field->number == kTrainer) check_trainer(inner, trainer);
    if (field->number == kNormalizer) check_normalizer(inner, "normalizer_spec", normalizer);
    if (field->number == kDenormalizer) check_normalizer(inner, "denormalizer_spec", denormalizer);
    if (field->number != kPieces) continue;
    if (n_pieces == kMostPieces) fail("more than " + str(kMostPieces) + " pieces");
    const Piece piece = check_piece(inner, n_pieces++);
    if (piece.user_defined) user_defined.push_back(piece.text);
  }
  check_nesting(std::move(user_defined));
  return {.keeps_characters = keeps_characters(normalizer),
          .from_train_tokenizer = from_train_tokenizer(trainer, normalizer)};
}

}  // namespace

SentencePieceTraits check_sentencepiece_model(std::string_view model, const std::string& path) {
  try {
    return check_model(model);
  } catch (const std::runtime_error& error) {
    throw bad_file(path, error.what());
  }
}

}  // namespace tandem
