#include "core/config.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "core/yaml_scalar.h"

namespace tandem {
namespace {

using Kind = ConfigNode::Kind;

constexpr std::string_view kNumber = "a number";

/// The rule in words, for a field that is `type`: "an integer >= 1" of the rule "a number >= 1".
std::string expected_of(const Rule& rule, std::string_view type) {
  if (!rule.expected.starts_with(kNumber)) return rule.expected;
  return std::string(type) + rule.expected.substr(kNumber.size());
}

bool holds(const Rule& rule, double value) { return !rule.holds || rule.holds(value); }

UserError wrong(const ConfigNode& node, const std::string& path, const std::string& expected) {
  return bad_value(node.origin, path, inline_yaml(node), expected);
}

std::string indexed(const std::string& path, size_t i) {
  return path + "[" + std::to_string(i) + "]";
}

/// The text of a scalar without quotes, or "", which is no number and no boolean.
std::string_view plain_text(const ConfigNode& node) {
  return node.kind == Kind::kScalar && !node.quoted ? std::string_view(node.scalar)
                                                    : std::string_view();
}

int64_t integer_at(const ConfigNode& node, const std::string& path, const Rule& rule) {
  const auto value = yaml_integer(plain_text(node));
  if (!value || !holds(rule, static_cast<double>(*value)))
    throw wrong(node, path, expected_of(rule, "an integer"));
  return *value;
}

double number_at(const ConfigNode& node, const std::string& path, const Rule& rule) {
  const auto value = yaml_number(plain_text(node));
  if (!value || !holds(rule, *value)) throw wrong(node, path, expected_of(rule, kNumber));
  return *value;
}

std::string string_at(const ConfigNode& node, const std::string& path) {
  if (node.kind != Kind::kScalar) throw wrong(node, path, "a string");
  return node.scalar;  // unquoted 2024 is the string "2024" where a string is asked for
}

const ConfigNode& expect(const ConfigNode& node, const std::string& path, Kind kind,
                         const std::string& expected) {
  if (node.kind != kind) throw wrong(node, path, expected);
  return node;
}

std::string joined(std::span<const std::string> words) {
  std::string out;
  for (const auto& word : words) out += (out.empty() ? "" : ", ") + word;
  return out;
}

std::vector<std::string> names_of(std::span<const Option> options) {
  std::vector<std::string> names;
  for (const auto& option : options) names.push_back(option.name);
  return names;
}

ConfigNode number_node(int64_t value) { return ConfigNode::make_scalar(std::to_string(value)); }

ConfigNode number_node(double value) {
  if (!std::isfinite(value)) throw std::logic_error("a config cannot hold " + number_text(value));
  return ConfigNode::make_scalar(number_text(value));
}

ConfigNode string_node(const std::string& value) {
  return ConfigNode::make_scalar(value, /*quoted=*/true);
}

template <typename T, typename MakeNode>
ConfigNode list_node(const std::vector<T>& values, MakeNode make_node) {
  ConfigNode list = ConfigNode::make_list();
  for (const auto& value : values) list.items.push_back(make_node(value));
  return list;
}

const ConfigNode& empty_map() {
  static const ConfigNode empty = ConfigNode::make_map();
  return empty;
}

bool is_written(const ConfigNode* node) { return node && node->kind != Kind::kNull; }

}  // namespace

Rule any_value() { return {std::string(kNumber), nullptr}; }
Rule at_least(double low) {
  return {"a number >= " + number_text(low), [=](double value) { return value >= low; }};
}
Rule above(double low) {
  return {"a number > " + number_text(low), [=](double value) { return value > low; }};
}
Rule in_range(double low, double high) {
  return {"a number from " + number_text(low) + " to " + number_text(high),
          [=](double value) { return value >= low && value <= high; }};
}
Rule even() {
  return {"an even integer >= 2",
          [](double value) { return value >= 2 && std::fmod(value, 2) == 0; }};
}

void Choice::pick(const std::string& option_name) {
  const auto found = std::find_if(options.begin(), options.end(),
                                  [&](const Option& o) { return o.name == option_name; });
  if (found == options.end()) {
    throw std::out_of_range(key + " = " + option_name +
                            ", expected one of: " + joined(names_of(options)));
  }
  name = option_name;
  config = found->make_config();
}

// ---- ConfigReader

ConfigReader::ConfigReader(const ConfigNode& node, std::string path)
    : node_(node), path_(std::move(path)) {
  if (node.kind != Kind::kNull) expect(node, path_, Kind::kMap, "a map");
}

void ConfigReader::value(const char* key, bool& out) {
  const ConfigNode* node = take(key);
  if (!node) return;
  const auto value = yaml_boolean(plain_text(*node));
  if (!value) throw wrong(*node, join(key), "true or false");
  out = *value;
}

void ConfigReader::value(const char* key, int64_t& out, const Rule& rule) {
  if (const ConfigNode* node = take(key)) out = integer_at(*node, join(key), rule);
}

void ConfigReader::value(const char* key, double& out, const Rule& rule) {
  if (const ConfigNode* node = take(key)) out = number_at(*node, join(key), rule);
}

void ConfigReader::optional_or_none(const char* key, std::optional<double>& out, const Rule& rule) {
  const ConfigNode* node = take(key);
  if (!node) return;
  const bool none = node->kind == ConfigNode::Kind::kScalar && !node->quoted && node->scalar == "none";
  out = none ? std::nullopt : std::optional(number_at(*node, join(key), rule));
}

void ConfigReader::value(const char* key, std::string& out) {
  if (const ConfigNode* node = take(key)) out = string_at(*node, join(key));
}

void ConfigReader::value(const char* key, std::vector<int64_t>& out, const Rule& rule) {
  const ConfigNode* node = take(key);
  if (!node) return;
  const auto& items = expect(*node, join(key), Kind::kList, "a list of integers").items;
  out.clear();
  for (size_t i = 0; i < items.size(); ++i)
    out.push_back(integer_at(items[i], indexed(join(key), i), rule));
}

void ConfigReader::value(const char* key, std::vector<double>& out, const Rule& rule) {
  const ConfigNode* node = take(key);
  if (!node) return;
  const auto& items = expect(*node, join(key), Kind::kList, "a list of numbers").items;
  out.clear();
  for (size_t i = 0; i < items.size(); ++i)
    out.push_back(number_at(items[i], indexed(join(key), i), rule));
}

void ConfigReader::value(const char* key, std::vector<std::string>& out) {
  const ConfigNode* node = take(key);
  if (!node) return;
  const auto& items = expect(*node, join(key), Kind::kList, "a list of strings").items;
  out.clear();
  for (size_t i = 0; i < items.size(); ++i)
    out.push_back(string_at(items[i], indexed(join(key), i)));
}

void ConfigReader::one_of(const char* key, std::string& out,
                          std::initializer_list<const char*> allowed) {
  const ConfigNode* node = take(key);
  if (!node) return;
  const std::vector<std::string> words(allowed.begin(), allowed.end());
  const bool known = node->kind == Kind::kScalar &&
                     std::find(words.begin(), words.end(), node->scalar) != words.end();
  if (!known) throw wrong(*node, join(key), "one of: " + joined(words));
  out = node->scalar;
}

void ConfigReader::choice(const char* key, Choice& out) {
  if (const ConfigNode* node = take(key)) read_choice(*node, join(key), out);
}

void ConfigReader::choices(const char* key, std::vector<Choice>& out, const Choice& prototype) {
  const ConfigNode* node = list_at(key);
  if (!node) return;
  out.clear();
  for (size_t i = 0; i < node->items.size(); ++i) {
    Choice read = prototype;
    read_choice(node->items[i], indexed(join(key), i), read);
    out.push_back(std::move(read));
  }
}

void ConfigReader::raw(const char* key, ConfigNode& out) {
  if (const ConfigNode* node = take(key)) out = *node;
}

void ConfigReader::read_choice(const ConfigNode& node, const std::string& path, Choice& out) {
  const auto names = names_of(out.options);
  expect(node, path, Kind::kMap, "a map with " + out.key + ", one of: " + joined(names));
  ConfigReader reader(node, path);
  reader.choice_key_ = out.key;
  const std::string name = reader.name_of_option(out);
  reader.known_.clear();
  out.pick(name);  // always a new config: copies of a Choice share theirs
  out.config->read(reader);
  reader.finish();
}

void ConfigReader::inline_choice(Choice& out) {
  out.pick(name_of_option(out));
  out.config->read(*this);
}

std::string ConfigReader::name_of_option(const Choice& out) {
  const auto names = names_of(out.options);
  const std::string key = join(out.key.c_str());
  if (const ConfigNode* named = take(out.key.c_str())) {
    const std::string name = string_at(*named, key);
    if (std::find(names.begin(), names.end(), name) != names.end()) return name;
    const std::string near = nearest(name, names);
    throw wrong(*named, key,
                "one of: " + joined(names) + (near.empty() ? "" : "; did you mean " + near + "?"));
  }
  if (!out.name.empty()) return out.name;
  std::vector<std::string> written;
  for (const auto& entry : node_.entries) written.push_back(entry.first);
  const std::string near = nearest(out.key, written);
  const bool misspelt = !near.empty() && near != out.key;
  throw bad_config(node_.origin, key + " is missing, expected one of: " + joined(names) +
                                     (misspelt ? "; is " + near + " meant to be " + out.key + "?"
                                               : ""));
}

void ConfigReader::finish() const {
  for (const auto& [key, value] : node_.entries) {
    if (key == choice_key_ || std::find(known_.begin(), known_.end(), key) != known_.end())
      continue;
    throw unknown_key(value.origin, join(scalar_text(key, /*is_string=*/true).c_str()), known_);
  }
}

bool ConfigReader::present(const char* key) { return take(key) != nullptr; }

/// The value of `key`, or nullptr when it is absent or null. From here on the key is known.
const ConfigNode* ConfigReader::take(const char* key) {
  known_.emplace_back(key);
  const ConfigNode* node = node_.find(key);
  return is_written(node) ? node : nullptr;
}

const ConfigNode* ConfigReader::map_at(const char* key) {
  const ConfigNode* node = take(key);
  return node ? &expect(*node, join(key), Kind::kMap, "a map") : nullptr;
}

const ConfigNode* ConfigReader::list_at(const char* key) {
  const ConfigNode* node = take(key);
  if (!node) return nullptr;
  const auto& items = expect(*node, join(key), Kind::kList, "a list of maps").items;
  for (size_t i = 0; i < items.size(); ++i) {
    if (items[i].kind == Kind::kNull) throw wrong(items[i], indexed(join(key), i), "a map");
  }
  return node;
}

std::string ConfigReader::join(const char* key) const {
  return path_.empty() ? key : path_ + "." + key;
}

// ---- ConfigWriter

void ConfigWriter::value(const char* key, bool& in) {
  add(key, ConfigNode::make_scalar(in ? "true" : "false"));
}
void ConfigWriter::value(const char* key, int64_t& in, const Rule&) { add(key, number_node(in)); }
void ConfigWriter::value(const char* key, double& in, const Rule&) { add(key, number_node(in)); }
void ConfigWriter::optional_or_none(const char* key, std::optional<double>& in, const Rule&) {
  add(key, in ? number_node(*in) : ConfigNode::make_scalar("none"));
}
void ConfigWriter::value(const char* key, std::string& in) { add(key, string_node(in)); }
void ConfigWriter::value(const char* key, std::vector<int64_t>& in, const Rule&) {
  add(key, list_node(in, [](int64_t value) { return number_node(value); }));
}
void ConfigWriter::value(const char* key, std::vector<double>& in, const Rule&) {
  add(key, list_node(in, [](double value) { return number_node(value); }));
}
void ConfigWriter::value(const char* key, std::vector<std::string>& in) {
  add(key, list_node(in, string_node));
}

void ConfigWriter::choice(const char* key, Choice& in) {
  if (!in.config) return;
  ConfigWriter writer;
  writer.add(in.key.c_str(), string_node(in.name));
  in.config->write(writer);
  add(key, std::move(writer.node_));
}

void ConfigWriter::choices(const char* key, std::vector<Choice>& in, const Choice&) {
  ConfigWriter elements;
  for (Choice& element : in) elements.choice("", element);
  ConfigNode list = ConfigNode::make_list();
  for (auto& [unused, node] : elements.node_.entries) list.items.push_back(std::move(node));
  add(key, std::move(list));
}

void ConfigWriter::inline_choice(Choice& in) {
  if (!in.config) return;
  add(in.key.c_str(), string_node(in.name));
  in.config->write(*this);
}

void ConfigWriter::raw(const char* key, ConfigNode& in) {
  if (is_written(&in)) add(key, in);
}

void ConfigWriter::add(const char* key, ConfigNode node) {
  node_.entries.emplace_back(key, std::move(node));
}

// ---- Checker

Checker::Checker(const ConfigNode& node, std::string path) : node_(node), path_(std::move(path)) {}

void Checker::divides(const char* small_key, int64_t small, const char* large_key,
                      int64_t large) const {
  const bool divisible = small > 0 && large % small == 0;
  const std::string small_text = std::to_string(small);
  if (written(small_key) && !written(large_key)) {
    require(divisible, small_key, small_text, "a divisor of " + std::to_string(large));
  } else if (written(large_key) && !written(small_key)) {
    require(divisible, large_key, std::to_string(large), "a multiple of " + small_text);
  } else {
    require(divisible, large_key, std::to_string(large),
            "a multiple of " + std::string(small_key) + " (" + small_text + ")");
  }
}

void Checker::require(bool holds, const char* key, const std::string& value,
                      const std::string& expected) const {
  if (holds) return;
  if (const ConfigNode* node = node_.find(key); is_written(node))
    throw bad_value(node->origin, join(key), value, expected);
  throw bad_value(node_.origin, (path_.empty() ? "" : path_ + ": ") + "default " + key, value,
                  expected);
}

bool Checker::written(const char* key) const { return is_written(node_.find(key)); }

const ConfigNode& Checker::child(const char* key) const {
  const ConfigNode* node = node_.find(key);
  return node ? *node : empty_map();
}

const ConfigNode& Checker::child(const char* key, size_t i) const {
  const ConfigNode& list = child(key);
  return i < list.items.size() ? list.items[i] : empty_map();
}

std::string Checker::join(const char* key) const { return path_.empty() ? key : path_ + "." + key; }
std::string Checker::join(const char* key, size_t i) const { return indexed(join(key), i); }

}  // namespace tandem
