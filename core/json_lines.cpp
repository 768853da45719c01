#include "core/json_lines.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <unordered_set>
#include <utility>
#include <vector>

#include "core/error.h"

namespace tandem {
namespace {

using nlohmann::ordered_json;

constexpr size_t kDeepest = 64;

/// Walks over a text and leaves word of how far it is, which nlohmann's parser tells only in its
/// own errors.
class Cursor {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  Cursor(const char* at, const char** seen) : at_(at), seen_(seen) {}
  reference operator*() const { return *at_; }
  Cursor& operator++() {
    *seen_ = ++at_;
    return *this;
  }
  bool operator==(const Cursor& other) const { return at_ == other.at_; }

 private:
  const char* at_;
  const char** seen_;
};

/// nlohmann's events with the rules it leaves out: depth and duplicate keys.
class StrictEvents {
 public:
  explicit StrictEvents(JsonHandler& handler) : handler_(handler) {}

  bool null() { return handler_.null(), true; }
  bool boolean(bool value) { return handler_.boolean(value), true; }
  bool number_integer(int64_t value) { return handler_.negative(value), true; }
  bool number_unsigned(uint64_t value) { return handler_.natural(value), true; }
  bool number_float(double value, const std::string&) { return handler_.number(value), true; }
  bool string(std::string& value) { return handler_.string(value), true; }
  bool binary(ordered_json::binary_t&) { return false; }  // never in a text
  bool start_object(size_t) {
    open();
    return handler_.begin_object(), true;
  }
  bool start_array(size_t) {
    open();
    return handler_.begin_array(), true;
  }
  bool key(std::string& name) {
    if (!keys_.back().insert(name).second) {
      throw std::runtime_error("duplicate key " + json_string(name, 80));
    }
    return handler_.key(name), true;
  }
  bool end_object() {
    keys_.pop_back();
    return handler_.end_object(), true;
  }
  bool end_array() {
    keys_.pop_back();
    return handler_.end_array(), true;
  }
  bool parse_error(size_t, const std::string&, const nlohmann::json::exception& error) {
    // "[json.exception.parse_error.101] parse error at line 1, column 2: RULE; last read: 'BYTES'"
    std::string rule = error.what();
    const size_t place = rule.find(" at line "), colon = rule.find(": ");
    if (place < colon && colon != std::string::npos) {
      rule = rule.substr(colon + 2);
    } else {
      rule = rule.substr(rule.find("] ") + 2);
    }
    throw std::runtime_error(rule.substr(0, rule.find("; last read")));
  }

 private:
  void open() {
    if (keys_.size() == kDeepest) {
      throw std::runtime_error("nested deeper than " + std::to_string(kDeepest));
    }
    keys_.emplace_back();
  }

  JsonHandler& handler_;
  std::vector<std::unordered_set<std::string>> keys_;  // of each open object; empty for an array
};

/// Builds the tree. nlohmann's own builder looks each key up among all before it.
class JsonTreeBuilder final : public JsonHandler {
 public:
  void null() override { add(nullptr); }
  void boolean(bool value) override { add(value); }
  void negative(int64_t value) override { add(value); }
  void natural(uint64_t value) override { add(value); }
  void number(double value) override { add(value); }
  void string(std::string& value) override { add(std::move(value)); }
  void key(std::string& name) override { key_ = std::move(name); }
  void begin_object() override { open_.push_back(add(ordered_json::object())); }
  void end_object() override { open_.pop_back(); }
  void begin_array() override { open_.push_back(add(ordered_json::array())); }
  void end_array() override { open_.pop_back(); }
  ordered_json take() { return std::move(root_); }

 private:
  ordered_json* add(ordered_json value) {
    if (open_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    if (open_.back()->is_array()) {
      auto& items = open_.back()->get_ref<ordered_json::array_t&>();
      return &items.emplace_back(std::move(value));
    }
    auto& members = open_.back()->get_ref<ordered_json::object_t&>();
    members.emplace_back(std::move(key_), std::move(value));
    return &members.back().second;
  }

  ordered_json root_;
  std::vector<ordered_json*>
      open_;  // the values being filled; only the innermost one grows, so all stay where they are
  std::string key_;
};

/// A value for a message; long or nested ones by their type only.
std::string described(const ordered_json& value) {
  if (value.is_number_float()) return json_number(value.get<double>());
  return value.is_number() ? value.dump() : value.type_name();
}

const ordered_json& member(const ordered_json& object, const char* key, const std::string& wanted) {
  if (!object.is_object()) {
    throw std::runtime_error(std::string("found ") + object.type_name() +
                             ", expected an object with " + key);
  }
  const auto found = object.find(key);
  if (found == object.end()) {
    throw std::runtime_error(std::string(key) + " is missing, expected " + wanted);
  }
  return *found;
}

}  // namespace

void parse_json(std::string_view text, JsonHandler& handler) {
  const char* begin = text.data();
  const char* seen = begin;
  const auto fail = [](std::ptrdiff_t byte, const std::string& rule) {
    return std::runtime_error("byte " + std::to_string(byte) + ": " + rule);
  };
  // nlohmann's lexer takes NUL for the end and would not look at what follows.
  const size_t nul = text.find('\0');
  if (nul != std::string_view::npos)
    throw fail(static_cast<std::ptrdiff_t>(nul) + 1, "a NUL character");
  try {
    StrictEvents events(handler);
    ordered_json::sax_parse(Cursor(begin, &seen), Cursor(begin + text.size(), &seen), &events);
  } catch (const std::runtime_error& error) {
    throw fail(seen - begin, error.what());
  }
}

ordered_json parse_json(std::string_view text) {
  JsonTreeBuilder builder;
  parse_json(text, builder);
  return builder.take();
}

ordered_json read_json(const std::string& path) {
  const std::string text = read_text(path);
  try {
    return parse_json(text);
  } catch (const std::runtime_error& error) {
    throw bad_file(path, error.what());
  }
}

int64_t get_int(const ordered_json& object, const char* key, int64_t low, int64_t high) {
  const std::string wanted =
      "an integer in [" + std::to_string(low) + ", " + std::to_string(high) + "]";
  const ordered_json& value = member(object, key, wanted);
  bool fits =
      value.is_number_integer();  // holds for unsigned numbers too, and these may be above 2^63
  if (value.is_number_unsigned()) fits = std::in_range<int64_t>(value.get<uint64_t>());
  if (!fits || value.get<int64_t>() < low || value.get<int64_t>() > high) {
    throw std::runtime_error(std::string(key) + " = " + described(value) + ", expected " + wanted);
  }
  return value.get<int64_t>();
}

std::string get_string(const ordered_json& object, const char* key) {
  const ordered_json& value = member(object, key, "a string");
  if (!value.is_string()) {
    throw std::runtime_error(std::string(key) + " = " + described(value) + ", expected a string");
  }
  return value.get<std::string>();
}

std::string json_number(double value) {
  if (!std::isfinite(value)) return "null";
  char text[32];
  return std::string(text, std::to_chars(text, text + sizeof text, value).ptr);
}

std::string json_string(std::string_view text, size_t longest) {
  size_t end = std::min(text.size(), longest);
  const bool cut = end < text.size();
  while (cut && end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) --end;
  try {
    return nlohmann::json(text.substr(0, end)).dump() + (cut ? "..." : "");
  } catch (const nlohmann::json::type_error&) {
    throw std::logic_error("json_string: the text is not UTF-8");
  }
}

JsonLinesWriter::JsonLinesWriter(const std::string& path) : file_(File::open_append(path)) {
  cut_off_half_line();
}

void JsonLinesWriter::cut_off_half_line() {
  std::byte piece[4096];
  const uint64_t size = file_.size();
  uint64_t end = size;  // nothing behind it is a newline
  while (end > 0) {
    const uint64_t begin = end - std::min<uint64_t>(end, sizeof piece);
    file_.read_at(begin, {piece, static_cast<size_t>(end - begin)});
    while (end > begin && piece[end - 1 - begin] != std::byte{'\n'}) --end;
    if (end > begin) break;
  }
  if (end < size) file_.truncate(end);
  half_line_ = false;
}

void JsonLinesWriter::write(const ordered_json& object) {
  if (half_line_) cut_off_half_line();
  // Text of others may be anything; replacing what is not UTF-8 beats losing the line.
  const auto line = object.dump(-1, ' ', false, ordered_json::error_handler_t::replace) + "\n";
  half_line_ = true;
  file_.write(line);
  half_line_ = false;
}

}  // namespace tandem
