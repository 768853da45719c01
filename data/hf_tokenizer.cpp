#include "data/hf_tokenizer.h"

#include <algorithm>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <unordered_set>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/file.h"
#include "core/json_lines.h"
#include "data/byte_level_tokenizer.h"
#include "data/hf_json.h"
#include "data/hf_model.h"

namespace tandem {
namespace {

using nlohmann::ordered_json;

std::string types_of(const ordered_json& parts) {
  std::string types;
  for (const ordered_json& part : parts) types += (types.empty() ? "" : ", ") + type_of(part);
  return one_line(types);
}

/// Whether the text is brought to normal form C.
bool read_normalizer(const ordered_json& json) {
  if (json.is_null()) return false;
  const std::string type = type_of(json);
  if (type == "NFC") return expect_object(json, "normalizer", {"type"}), true;
  if (type == "Sequence") {
    bool nfc = false;
    for (const ordered_json& part : list_of(json, "normalizer", "normalizers")) {
      nfc = read_normalizer(part) || nfc;
    }
    return nfc;
  }
  throw refuse("normalizer " + type + ", expected NFC or none");
}

struct PreTokenizer {
  SplitPattern pattern;
  bool add_prefix_space;
};

/// ByteLevel with its own regex, GPT-2's; or Split with one, and then ByteLevel without.
PreTokenizer read_pre_tokenizer(const ordered_json& json) {
  const std::string expected = ", expected ByteLevel, or Split and ByteLevel";
  std::vector<ordered_json> parts = {json};
  if (type_of(json) == "Sequence") {
    const ordered_json& list = list_of(json, "pre_tokenizer", "pretokenizers");
    parts.clear();
    for (const ordered_json& part : list) parts.push_back(part);
  }
  const bool split = parts.size() == 2 && type_of(parts[0]) == "Split";
  if ((!split && parts.size() != 1) || type_of(parts.back()) != "ByteLevel") {
    throw refuse("pre_tokenizer " +
                 (parts.size() == 1 ? type_of(parts[0]) : "of " + types_of(parts)) + expected);
  }
  const ordered_json& byte_level = parts.back();
  expect_object(byte_level, "pre_tokenizer ByteLevel",
                {"type", "add_prefix_space", "trim_offsets", "use_regex"});
  const bool space = flag(byte_level, "pre_tokenizer ByteLevel", "add_prefix_space", true);
  const bool own_regex = flag(byte_level, "pre_tokenizer ByteLevel", "use_regex", true);
  if (!split) {
    if (!own_regex) throw refuse("pre_tokenizer ByteLevel with use_regex false and no Split");
    return {SplitPattern::kGpt2, space};
  }
  if (own_regex) throw refuse("pre_tokenizer ByteLevel with use_regex true behind a Split");
  if (space) throw refuse("pre_tokenizer ByteLevel with add_prefix_space true behind a Split");

  expect_object(parts[0], "pre_tokenizer Split", {"type", "pattern", "behavior", "invert"});
  const ordered_json& pattern = member(parts[0], "pattern");
  expect_object(pattern, "pre_tokenizer Split.pattern", {"Regex", "String"});
  const ordered_json& regex = member(pattern, "Regex");
  if (!regex.is_string()) throw refuse("pre_tokenizer Split.pattern is not a Regex");
  const auto known = pattern_of_regex(regex.get_ref<const std::string&>());
  if (!known) {
    throw refuse("pre_tokenizer pattern " + shown(regex) +
                 " is not known, expected that of GPT-2, cl100k (Llama-3) or Qwen2");
  }
  // These patterns leave nothing between their matches, so that these two are the same.
  const bool invert = flag(parts[0], "pre_tokenizer Split", "invert", false);
  const ordered_json& behavior = member(parts[0], "behavior");
  if (behavior != (invert ? "Removed" : "Isolated")) {
    throw refuse("pre_tokenizer Split with behavior " + shown(behavior) + " and invert " +
                 (invert ? "true" : "false") + ", expected \"Isolated\" and false");
  }
  return {*known, false};
}

/// Runs `read`; its errors get `place` in front.
template <typename Read>
auto in(const std::string& place, const Read& read) {
  try {
    return read();
  } catch (const std::runtime_error& error) {
    throw refuse(place + ": " + error.what());
  }
}

/// The library does not take ids from here, but from the vocabulary, or counts on from there: a
/// file that says otherwise is not what was trained with it.
std::vector<AddedToken> read_added_tokens(const ordered_json& list, HfModel& model) {
  if (list.is_null()) return {};
  if (!list.is_array()) throw refuse("added_tokens is not a list");
  std::vector<AddedToken> added;
  std::unordered_set<std::string> contents;
  auto next = static_cast<int32_t>(model.ids.size());
  for (size_t i = 0; i < list.size(); ++i) {
    const std::string what = "added_tokens[" + std::to_string(i) + "]";
    const ordered_json& json = list[i];
    expect_object(json, what,
                  {"id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"});
    AddedToken token;
    token.content = in(what, [&] { return get_string(json, "content"); });
    check_length(token.content, what);
    const std::string named = "added token " + token_shown(token.content);
    if (!contents.insert(token.content).second) throw refuse(named + " is there twice");
    for (const char* key : {"single_word", "lstrip", "rstrip"}) {
      if (flag(json, what, key, false)) throw refuse(named + " has " + key + ", expected false");
    }
    token.special = flag(json, what, "special", false);
    token.normalized = flag(json, what, "normalized", !token.special);
    const auto in_vocab = model.ids.find(token.content);
    const bool known = in_vocab != model.ids.end();
    token.id =
        in(what, [&] { return static_cast<int32_t>(get_int(json, "id", 0, kMaxTokenId - 1)); });
    if (token.id != (known ? in_vocab->second : next)) {
      throw refuse(named + " has the id " + std::to_string(token.id) + ", expected " +
                   std::to_string(known ? in_vocab->second : next) +
                   (known ? ", as in model.vocab" : ", the next one"));
    }
    next = std::max(next, token.id + 1);
    if (known) {
      std::string& bytes = model.bytes[static_cast<size_t>(token.id)];
      if (!token.special && bytes != token.content) {
        throw refuse(named + " spells other bytes in model.vocab");
      }
      // No text becomes it but its own, unless words that are tokens are taken whole.
      if (token.special && !model.ignore_merges) bytes.clear();
    } else if (static_cast<size_t>(token.id) < model.bytes.size()) {
      throw refuse(named + " has the id of another token");
    }
    added.push_back(std::move(token));
  }
  return added;
}

/// The one of `names` that is a special token, unless there are several.
std::optional<int32_t> only_one_of(std::initializer_list<std::string_view> names,
                                   const std::vector<AddedToken>& added) {
  std::optional<int32_t> id;
  for (const AddedToken& token : added) {
    if (!token.special || std::find(names.begin(), names.end(), token.content) == names.end()) {
      continue;
    }
    if (id) return std::nullopt;
    id = token.id;
  }
  return id;
}

std::unique_ptr<Tokenizer> make(std::string text, const std::string& path) {
  const ordered_json json = parse_json(text);
  expect_object(json, "the file",
                {"version", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer",
                 "post_processor", "decoder", "model"});
  for (const char* key : {"truncation", "padding"}) {
    if (!member(json, key).is_null()) throw refuse(std::string(key) + " is set, expected null");
  }
  const bool nfc = read_normalizer(member(json, "normalizer"));
  const PreTokenizer pre_tokenizer = read_pre_tokenizer(member(json, "pre_tokenizer"));
  const std::string decoder = type_of(member(json, "decoder"));
  if (decoder != "ByteLevel") throw refuse("decoder " + decoder + ", expected ByteLevel");
  HfModel model = read_hf_model(member(json, "model"));
  auto added = read_added_tokens(member(json, "added_tokens"), model);

  auto size = static_cast<int64_t>(model.bytes.size());
  for (const AddedToken& token : added) size = std::max<int64_t>(size, token.id + 1);
  for (const auto& [token, id] : model.ids) {
    if (!model.bytes[static_cast<size_t>(id)].empty()) continue;
    const int32_t without_bytes = id;
    if (std::none_of(added.begin(), added.end(),
                     [&](const AddedToken& each) { return each.id == without_bytes; })) {
      throw refuse("model.vocab: " + token_shown(token) +
                   " is not spelled in byte-level characters");
    }
  }
  std::unordered_set<int32_t> special;
  for (const AddedToken& token : added) {
    if (token.special) special.insert(token.id);
  }
  for (const ByteBpe::Merge& merge : model.merges) {
    for (const int32_t id : {merge.left, merge.right, merge.result}) {
      if (!special.contains(id)) continue;
      throw refuse("a merge of the special token " + std::to_string(id));
    }
  }
  const auto bos = only_one_of({"<|endoftext|>", "<|begin_of_text|>", "<s>"}, added);
  const auto eos = only_one_of({"<|endoftext|>", "<|end_of_text|>", "</s>"}, added);
  return make_byte_level_tokenizer(
      {.bpe = ByteBpe(std::move(model.bytes), model.merges, model.ignore_merges),
       .pattern = pre_tokenizer.pattern,
       .nfc = nfc,
       .add_prefix_space = pre_tokenizer.add_prefix_space,
       .added = std::move(added),
       .vocab_size = size,
       .bos = bos,
       .eos = eos,
       .model_bytes = std::move(text),
       .file_name = "tokenizer.json",
       .name = path});
}

}  // namespace

std::unique_ptr<Tokenizer> parse_hf_tokenizer(std::string json, const std::string& path) {
  try {
    return make(std::move(json), path);
  } catch (const std::runtime_error& error) {
    throw bad_file(path, error.what());
  }
}

std::unique_ptr<Tokenizer> load_hf_tokenizer(const std::string& path) {
  return parse_hf_tokenizer(read_text(path, kMaxVocabularyFileBytes), path);
}

}  // namespace tandem
