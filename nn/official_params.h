#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

// What the forms of other programs share: a JSON file of model arguments, and other names for the same weights.

namespace tandem {

/// Reads model arguments and keeps track of those that nobody asked for. Errors are std::runtime_error naming key, value and what is expected;
/// callers put the file's name in front.
class OfficialParams {
 public:
  explicit OfficialParams(const nlohmann::ordered_json& json);
  bool given(const char* key);  ///< present and not null
  int64_t integer(const char* key, int64_t low = 1);
  int64_t integer_or(const char* key, int64_t absent) { return given(key) ? integer(key) : absent; }
  double positive(const char* key);
  double positive_or(const char* key, double absent) { return given(key) ? positive(key) : absent; }
  bool flag_or(const char* key, bool absent);
  std::string text(const char* key);
  std::string text_or(const char* key, const std::string& absent) { return given(key) ? text(key) : absent; }
  /// The object under `key`; null where it is absent or null.
  const nlohmann::ordered_json* object(const char* key);
  /// Refuses anything but null and absence.
  void require_absent(const char* key, const std::string& why);
  /// Throws unless `holds`; `value` is shown as it stands in the file.
  void require(bool holds, const char* key, const std::string& expected) const;
  void ignore(std::initializer_list<const char*> keys) { asked_.insert(keys.begin(), keys.end()); }  ///< known, and without a meaning here
  std::vector<std::string> not_asked_for() const;

 private:
  const nlohmann::ordered_json& json_;
  std::set<std::string> asked_;
};

struct Renaming {
  const char* ours;
  const char* theirs;
};

/// Our name of a weight in another program's words: what stands behind "layers.N.", or the whole name where there is no layer, is looked up without
/// its last component and replaced; what is not in the table keeps its name.
std::string renamed(const std::string& ours, std::span<const Renaming> table);

}  // namespace tandem
