#include "data/hf_json.h"

#include <algorithm>

#include "core/error.h"
#include "core/json_lines.h"
#include "data/byte_level_tokenizer.h"

namespace tandem {
namespace {

using nlohmann::ordered_json;

constexpr size_t kLongestShown = 100;  // bytes of a string in a message

}  // namespace

std::runtime_error refuse(const std::string& what) { return std::runtime_error(what); }

std::string shown(const ordered_json& value) {
  if (value.is_string()) return json_string(value.get_ref<const std::string&>(), kLongestShown);
  return value.is_structured() ? value.type_name() : value.dump();
}

const ordered_json& member(const ordered_json& object, const char* key) {
  static const ordered_json null;
  const auto found = object.find(key);
  return found == object.end() ? null : *found;
}

void expect_object(const ordered_json& value, const std::string& what,
                   std::initializer_list<std::string_view> keys) {
  if (!value.is_object()) throw refuse(what + " is " + shown(value) + ", expected an object");
  for (const auto& [key, unused] : value.items()) {
    if (std::find(keys.begin(), keys.end(), key) != keys.end()) continue;
    throw refuse(what + " has the unknown key " + json_string(key, kLongestShown));
  }
}

bool flag(const ordered_json& object, const std::string& what, const char* key, bool absent) {
  const ordered_json& value = member(object, key);
  if (value.is_null()) return absent;
  if (!value.is_boolean()) {
    throw refuse(what + "." + key + " = " + shown(value) + ", expected true or false");
  }
  return value.get<bool>();
}

std::string type_of(const ordered_json& part) {
  if (part.is_object() && member(part, "type").is_string()) {
    return one_line(member(part, "type").get_ref<const std::string&>());
  }
  return part.is_null() ? "null" : "without a type";
}

const ordered_json& list_of(const ordered_json& sequence, const std::string& what,
                            const char* key) {
  expect_object(sequence, what, {"type", key});
  const ordered_json& list = member(sequence, key);
  if (!list.is_array()) throw refuse(what + "." + key + " is not a list");
  return list;
}

std::string token_shown(const std::string& token) { return json_string(token, kLongestShown); }

void check_length(const std::string& token, const std::string& what) {
  if (!token.empty() && token.size() <= kMaxTokenBytes) return;
  throw refuse(what + " has " + std::to_string(token.size()) + " bytes, expected 1 to " +
               std::to_string(kMaxTokenBytes));
}

}  // namespace tandem
