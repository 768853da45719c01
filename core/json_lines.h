#pragma once
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "core/file.h"

namespace tandem {

/// Parses JSON strictly: one value, UTF-8, no duplicate keys, nesting up to 64. Throws std::runtime_error "byte N: rule", N
/// the bytes read when the rule was broken; callers put the file's name in front.
nlohmann::ordered_json parse_json(std::string_view text);
/// A whole file; errors are bad_file(path, ...).
nlohmann::ordered_json read_json(const std::string& path);
/// An integer in [low, high]; nlohmann's own get<T>() wraps silently. Throws std::runtime_error naming key, value and range.
int64_t get_int(const nlohmann::ordered_json& object, const char* key, int64_t low, int64_t high);
std::string get_string(const nlohmann::ordered_json& object, const char* key);

/// The values of a JSON text in the order they stand there, for readers that must not hold it as a tree. What a handler throws
/// as std::runtime_error gets "byte N: " in front.
class JsonHandler {
 public:
  virtual ~JsonHandler() = default;
  virtual void null() = 0;
  virtual void boolean(bool value) = 0;
  virtual void negative(int64_t value) = 0;   ///< an integer with a minus sign, -0 too
  virtual void natural(uint64_t value) = 0;   ///< an integer without
  virtual void number(double value) = 0;      ///< with a fraction or an exponent, or too large for 64 bits
  virtual void string(std::string& value) = 0;  ///< may be moved from
  virtual void key(std::string& name) = 0;      ///< may be moved from
  virtual void begin_object() = 0;
  virtual void end_object() = 0;
  virtual void begin_array() = 0;
  virtual void end_array() = 0;
};
/// parse_json() as events: the same rules and errors.
void parse_json(std::string_view text, JsonHandler& handler);

/// Shortest text that reads back to the same double; "nan", "inf", "-inf" become null, as JSON has none.
std::string json_number(double value);
/// `text` in quotes, escaped. Throws std::logic_error when it is not UTF-8. For messages: cut after `longest` bytes, at a
/// character, with "..." behind the quotes.
std::string json_string(std::string_view text, size_t longest = std::string_view::npos);

/// Appends one object a line. A half line left by a killed process is cut off when the file is opened.
class JsonLinesWriter {
 public:
  explicit JsonLinesWriter(const std::string& path);
  /// Throws cannot_write; a half line that a full disk left is cut off before the next one.
  void write(const nlohmann::ordered_json& object);
  /// What was written survives a loss of power. Throws cannot_write.
  void sync() { file_.sync(); }

 private:
  void cut_off_half_line();
  File file_;
  bool half_line_ = true;  // the file may end inside a line
};

}  // namespace tandem
