#include "nn/official_params.h"

#include <limits>
#include <stdexcept>

#include "core/json_lines.h"

namespace tandem {

OfficialParams::OfficialParams(const nlohmann::ordered_json& json) : json_(json) {
  if (!json.is_object()) throw std::runtime_error("expected an object of model arguments");
}

bool OfficialParams::given(const char* key) {
  asked_.insert(key);
  return json_.contains(key) && !json_.at(key).is_null();
}

int64_t OfficialParams::integer(const char* key, int64_t low) {
  asked_.insert(key);
  return get_int(json_, key, low, std::numeric_limits<int32_t>::max());
}

double OfficialParams::positive(const char* key) {
  asked_.insert(key);
  if (!json_.contains(key)) throw std::runtime_error(std::string(key) + " is missing");
  const auto& value = json_.at(key);
  require(value.is_number() && value.get<double>() > 0, key, "a number > 0");
  return value.get<double>();
}

bool OfficialParams::flag_or(const char* key, bool absent) {
  if (!given(key)) return absent;
  require(json_.at(key).is_boolean(), key, "true or false");
  return json_.at(key).get<bool>();
}

std::string OfficialParams::text(const char* key) {
  asked_.insert(key);
  return get_string(json_, key);
}

const nlohmann::ordered_json* OfficialParams::object(const char* key) {
  if (!given(key)) return nullptr;
  require(json_.at(key).is_object(), key, "an object");
  return &json_.at(key);
}

void OfficialParams::require_absent(const char* key, const std::string& why) {
  if (given(key)) require(false, key, "null: " + why);
}

void OfficialParams::require(bool holds, const char* key, const std::string& expected) const {
  if (!holds)
    throw std::runtime_error(std::string(key) + " = " + json_.at(key).dump() + ", expected " +
                             expected);
}

std::vector<std::string> OfficialParams::not_asked_for() const {
  std::vector<std::string> keys;
  for (const auto& [key, value] : json_.items()) {
    if (!asked_.contains(key)) keys.push_back(key);
  }
  return keys;
}

std::string renamed(const std::string& ours, std::span<const Renaming> table) {
  size_t begin = 0;
  if (const size_t layers = ours.find("layers."); layers != std::string::npos)
    begin = ours.find('.', layers + 7) + 1;
  const size_t end = ours.rfind('.');
  for (const auto& renaming : table) {
    if (ours.compare(begin, end - begin, renaming.ours) == 0)
      return ours.substr(0, begin) + renaming.theirs + ours.substr(end);
  }
  return ours;
}

}  // namespace tandem
