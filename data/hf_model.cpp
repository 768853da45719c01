#include "data/hf_model.h"

#include <array>
#include <unordered_set>
#include <utility>

#include "data/byte_level_tokenizer.h"
#include "data/hf_json.h"
#include "data/utf8.h"

namespace tandem {
namespace {

using nlohmann::ordered_json;

/// GPT-2's spelling of bytes: those that print stand for themselves, the others are the characters
/// from U+0100 on, in order.
const std::array<int, 0x144>& byte_of_character() {
  static const auto table = [] {
    std::array<int, 0x144> bytes;
    bytes.fill(-1);
    int next = 0x100;
    for (int byte = 0; byte < 256; ++byte) {
      const bool prints = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD);
      bytes[static_cast<size_t>(prints ? byte : next++)] = byte;
    }
    return bytes;
  }();
  return table;
}

/// The bytes that a token of the vocabulary spells; empty when it has other characters.
std::string bytes_of(std::string_view token) {
  std::string bytes;
  while (!token.empty()) {
    const auto lead = static_cast<unsigned char>(token[0]);
    const size_t length = utf8_length(token);
    if (length == 0 || length > 2) return "";
    size_t character = lead;
    if (length == 2)
      character = (lead & 0x1Fu) << 6 | (static_cast<unsigned char>(token[1]) & 0x3F);
    if (character >= byte_of_character().size() || byte_of_character()[character] < 0) return "";
    bytes.push_back(static_cast<char>(byte_of_character()[character]));
    token.remove_prefix(length);
  }
  return bytes;
}

void read_vocab(const ordered_json& vocab, HfModel& model) {
  if (!vocab.is_object()) throw refuse("model.vocab is missing, expected an object");
  for (const auto& [token, id] : vocab.items()) {
    check_length(token, "model.vocab: a token");
    const bool fits = id.is_number_unsigned() && id.get<uint64_t>() < kMaxTokenId;
    if (!fits) {
      throw refuse("model.vocab: " + token_shown(token) + " has the id " + shown(id) +
                   ", expected an integer in [0, " + std::to_string(kMaxTokenId - 1) + "]");
    }
    const auto place = id.get<size_t>();
    if (place >= model.bytes.size()) model.bytes.resize(place + 1);
    model.ids.emplace(token, static_cast<int32_t>(place));
  }
  std::vector<bool> taken(model.bytes.size());
  for (const auto& [token, id] : vocab.items()) {
    const auto place = id.get<size_t>();
    if (taken[place]) throw refuse("model.vocab: id " + shown(id) + " is there twice");
    taken[place] = true;
    model.bytes[place] = bytes_of(token);
  }
}

/// The two sides of a merge: "a b", or ["a", "b"] in newer files.
std::pair<std::string, std::string> sides_of(const ordered_json& merge, const std::string& what) {
  if (merge.is_string()) {
    const std::string& text = merge.get_ref<const std::string&>();
    const size_t space = text.find(' ');
    if (space != text.npos && text.find(' ', space + 1) == text.npos) {
      return {text.substr(0, space), text.substr(space + 1)};
    }
  } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() &&
             merge[1].is_string()) {
    return {merge[0].get<std::string>(), merge[1].get<std::string>()};
  }
  throw refuse(what + " is " + shown(merge) + ", expected \"a b\" or [\"a\", \"b\"]");
}

void read_merges(const ordered_json& merges, HfModel& model) {
  if (!merges.is_array()) throw refuse("model.merges is missing, expected a list");
  std::unordered_set<int64_t> pairs;
  for (size_t i = 0; i < merges.size(); ++i) {
    const std::string what = "model.merges[" + std::to_string(i) + "]";
    if (i == 0 && merges[i].is_string() &&
        merges[i].get_ref<const std::string&>().starts_with("#version")) {
      continue;  // the first line of an old merges.txt
    }
    const auto [left, right] = sides_of(merges[i], what);
    const auto id_of = [&](const std::string& token) {
      const auto found = model.ids.find(token);
      if (found == model.ids.end()) {
        throw refuse(what + ": " + token_shown(token) + " is not in the vocabulary");
      }
      if (model.bytes[static_cast<size_t>(found->second)].empty()) {
        throw refuse(what + ": " + token_shown(token) + " does not stand for bytes");
      }
      return found->second;
    };
    const ByteBpe::Merge merge = {id_of(left), id_of(right), id_of(left + right)};
    if (!pairs.insert(int64_t{merge.left} << 32 | merge.right).second) {
      throw refuse(what + " is there twice");
    }
    model.merges.push_back(merge);
  }
}

}  // namespace

HfModel read_hf_model(const ordered_json& json) {
  const std::string type = type_of(json);
  // Older files give no type.
  if (!json.is_object() || (type != "BPE" && !member(json, "type").is_null())) {
    throw refuse("model " + type + ", expected BPE");
  }
  expect_object(json, "model",
                {"type", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix",
                 "fuse_unk", "byte_fallback", "ignore_merges", "vocab", "merges"});
  const ordered_json& dropout = member(json, "dropout");
  if (!dropout.is_null() && dropout != 0.0) {
    throw refuse("model.dropout = " + shown(dropout) + ", expected null");
  }
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    const ordered_json& value = member(json, key);
    if (value.is_null() || value == "") continue;
    throw refuse(std::string("model.") + key + " = " + shown(value) + ", expected null");
  }
  if (flag(json, "model", "byte_fallback", false)) {
    throw refuse("model.byte_fallback = true, expected false: bytes have tokens of their own");
  }
  HfModel model;
  model.ignore_merges = flag(json, "model", "ignore_merges", false);
  read_vocab(member(json, "vocab"), model);
  read_merges(member(json, "merges"), model);
  return model;
}

}  // namespace tandem
