#pragma once
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <string_view>

namespace tandem {

// What the readers of a tokenizer.json share: members of its objects, and refusals that show what was found.

/// What a reader throws; parse_hf_tokenizer() puts the file in front.
std::runtime_error refuse(const std::string& what);
/// A value for a message, and a token.
std::string shown(const nlohmann::ordered_json& value);
std::string token_shown(const std::string& token);
/// The member, or null where there is none.
const nlohmann::ordered_json& member(const nlohmann::ordered_json& object, const char* key);
/// Throws unless `value` is an object without other keys than `keys`; `what` is its name in messages, here and below.
void expect_object(const nlohmann::ordered_json& value, const std::string& what, std::initializer_list<std::string_view> keys);
/// The member, which must be true or false; `absent` where there is none.
bool flag(const nlohmann::ordered_json& object, const std::string& what, const char* key, bool absent);
/// "type" of a part, or what stands in its place.
std::string type_of(const nlohmann::ordered_json& part);
/// The list of a Sequence, which must be one.
const nlohmann::ordered_json& list_of(const nlohmann::ordered_json& sequence, const std::string& what, const char* key);
/// Throws unless a token has 1 to kMaxTokenBytes bytes.
void check_length(const std::string& token, const std::string& what);

}  // namespace tandem
