#include "core/config_node.h"

#include <algorithm>
#include <cctype>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "core/file.h"
#include "core/yaml_reader.h"
#include "core/yaml_scalar.h"

namespace tandem {
namespace {

using Kind = ConfigNode::Kind;

constexpr size_t kLineWidth = 100;
const Origin kCommandLine{"command line", 0};

bool is_collection(const ConfigNode& node) {
  return node.kind == Kind::kList || node.kind == Kind::kMap;
}

/// A list or map whose parts are scalars, or one with nothing in it.
bool is_flat(const ConfigNode& node) {
  return std::none_of(node.items.begin(), node.items.end(), is_collection) &&
         std::none_of(node.entries.begin(), node.entries.end(),
                      [](const auto& e) { return is_collection(e.second); });
}

std::string key_text(const std::string& key) { return scalar_text(key, /*is_string=*/true); }

void write_block(const ConfigNode& node, size_t indent, std::string& out);

/// Writes `node` after `lead`, a list's dash or a map's key: on the same line when it is short,
/// else below it.
void write_part(const std::string& lead, const ConfigNode& node, size_t indent, std::string& out) {
  const std::string line =
      std::string(indent, ' ') + lead + " " + (is_flat(node) ? inline_yaml(node) : "");
  const bool empty = node.items.empty() && node.entries.empty();
  if (!is_collection(node) || empty || (is_flat(node) && line.size() <= kLineWidth)) {
    out += line + "\n";
  } else if (lead == "-") {  // the first line of the block moves up behind the dash
    std::string block;
    write_block(node, indent + 2, block);
    block[indent] = '-';
    out += block;
  } else {
    out += std::string(indent, ' ') + lead + "\n";
    write_block(node, indent + 2, out);
  }
}

void write_block(const ConfigNode& node, size_t indent, std::string& out) {
  for (const auto& item : node.items) write_part("-", item, indent, out);
  for (const auto& [key, value] : node.entries) write_part(key_text(key) + ":", value, indent, out);
}

nlohmann::ordered_json json_of(const ConfigNode& node) {
  switch (node.kind) {
    case Kind::kNull:
      return nullptr;
    case Kind::kScalar: {
      if (node.quoted) return node.scalar;
      if (const auto boolean = yaml_boolean(node.scalar)) return *boolean;
      const bool digits_only = node.scalar.find_first_of(".eE") == std::string::npos;
      if (const auto integer = yaml_integer(node.scalar); integer && digits_only) return *integer;
      if (const auto number = yaml_number(node.scalar)) return *number;
      return node.scalar;
    }
    case Kind::kList: {
      auto list = nlohmann::ordered_json::array();
      for (const auto& item : node.items) list.push_back(json_of(item));
      return list;
    }
    case Kind::kMap: {
      auto map = nlohmann::ordered_json::object();
      for (const auto& [key, value] : node.entries) map.push_back({key, json_of(value)});
      return map;
    }
  }
  throw std::logic_error("ConfigNode of an unknown kind");
}

/// One step of an override's path: a key of a map or an index of a list.
struct Step {
  std::string key;
  size_t index = 0;
  bool is_index = false;
};

UserError bad_path(std::string_view path) {
  return bad_value(kCommandLine, "", path, "a key such as model.mixers[0].window");
}

/// "a.b[0].c" into its steps.
std::vector<Step> parse_path(std::string_view path) {
  const auto in_key = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '-';
  };
  const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
  std::vector<Step> steps;
  size_t i = 0;
  while (i < path.size() || steps.empty()) {
    if (i < path.size() && path[i] == '[' && !steps.empty()) {
      const size_t close = path.find(']', i);
      const auto digits = path.substr(i + 1, close == path.npos ? path.npos : close - i - 1);
      const bool good = !digits.empty() && digits.size() <= 9 &&
                        std::all_of(digits.begin(), digits.end(), is_digit);
      if (close == path.npos || !good) throw bad_path(path);
      steps.push_back({"", std::stoul(std::string(digits)), true});
      i = close + 1;
    } else {
      if (!steps.empty() && path[i++] != '.') throw bad_path(path);
      const size_t begin = i;
      while (i < path.size() && in_key(path[i])) ++i;
      if (i == begin) throw bad_path(path);
      steps.push_back({std::string(path.substr(begin, i - begin)), 0, false});
    }
  }
  return steps;
}

/// The child of `node` that `step` names, made when it is a key that is not there yet.
ConfigNode& child(ConfigNode& node, const Step& step, const std::string& path) {
  if (step.is_index) {
    const std::string name = path + "[" + std::to_string(step.index) + "]";
    if (node.kind != Kind::kList) {
      throw bad_config(kCommandLine, name + " does not exist; " + path + " is not a list");
    }
    if (step.index >= node.items.size()) {
      throw bad_config(kCommandLine, name + " does not exist; " + path + " has " +
                                         std::to_string(node.items.size()) + " entries");
    }
    return node.items[step.index];
  }
  if (node.kind == Kind::kNull) {
    node = ConfigNode::make_map();
    node.origin = kCommandLine;
  }
  if (node.kind != Kind::kMap) {
    throw bad_config(kCommandLine, (path.empty() ? "" : path + ".") + step.key +
                                       " cannot be set; " + (path.empty() ? "the config" : path) +
                                       " is " + one_line(inline_yaml(node)) + ", not a map");
  }
  if (ConfigNode* found = node.find(step.key)) return *found;
  return node.entries.emplace_back(step.key, ConfigNode{}).second;
}

}  // namespace

ConfigNode::ConfigNode() = default;
ConfigNode::ConfigNode(const ConfigNode&) = default;
ConfigNode::ConfigNode(ConfigNode&&) noexcept = default;
ConfigNode& ConfigNode::operator=(const ConfigNode&) = default;
ConfigNode& ConfigNode::operator=(ConfigNode&&) noexcept = default;
ConfigNode::~ConfigNode() = default;

const ConfigNode* ConfigNode::find(std::string_view key) const {
  for (const auto& entry : entries) {
    if (entry.first == key) return &entry.second;
  }
  return nullptr;
}

ConfigNode* ConfigNode::find(std::string_view key) {
  return const_cast<ConfigNode*>(std::as_const(*this).find(key));
}

bool ConfigNode::operator==(const ConfigNode& other) const {
  const bool same_quotes =
      quoted == other.quoted || !looks_typed(scalar);  // "abc" and abc are one string
  return kind == other.kind && scalar == other.scalar && (kind != Kind::kScalar || same_quotes) &&
         items == other.items && entries == other.entries;
}

ConfigNode ConfigNode::make_scalar(std::string text, bool quoted) {
  ConfigNode node;
  node.kind = Kind::kScalar;
  node.scalar = std::move(text);
  node.quoted = quoted;
  return node;
}

ConfigNode ConfigNode::make_map() {
  ConfigNode node;
  node.kind = Kind::kMap;
  return node;
}

ConfigNode ConfigNode::make_list() {
  ConfigNode node;
  node.kind = Kind::kList;
  return node;
}

ConfigNode parse_yaml_file(const std::string& path) {
  if (const uint64_t size = File::open_read(path).size(); size > kMaxYamlBytes) {
    throw bad_config({path, 0},
                     "is " + std::to_string(size) + " bytes long, expected at most 1 MiB");
  }
  return parse_yaml(read_text(path, kMaxYamlBytes), path);
}

ConfigNode parse_yaml(std::string_view text, const std::string& name) {
  ConfigNode node = read_yaml(text, {name, true, "", 0});
  if (node.kind == Kind::kNull) node.kind = Kind::kMap;
  return node;
}

void apply_override(ConfigNode& root, std::string_view word) {
  const size_t equals = word.find('=');
  if (equals == word.npos) throw bad_value(kCommandLine, "", word, "KEY=VALUE");
  const std::string path(word.substr(0, equals));
  const auto steps = parse_path(path);
  ConfigNode value = read_yaml(word.substr(equals + 1), {.name = kCommandLine.file,
                                                         .has_lines = false,
                                                         .key = path,
                                                         .depth = static_cast<int>(steps.size())});
  ConfigNode* node = &root;
  std::string walked;
  for (const Step& step : steps) {
    node = &child(*node, step, walked);
    if (step.is_index) {
      walked += "[" + std::to_string(step.index) + "]";
    } else {
      walked += (walked.empty() ? "" : ".") + step.key;
    }
  }
  *node = std::move(value);
}

std::vector<std::string> override_words(const std::vector<std::string>& arguments) {
  std::vector<std::string> words;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string& argument = arguments[i];
    const bool dashes = argument.starts_with("--");
    const std::string word = dashes ? argument.substr(2) : argument;
    if (word.find('=') != word.npos) {
      words.push_back(word);
    } else if (!dashes) {
      throw bad_value(kCommandLine, "", argument, "KEY=VALUE");
    } else if (i + 1 == arguments.size() || arguments[i + 1].starts_with("--")) {
      throw bad_config(kCommandLine, one_line(argument) + " has no value, expected one after it");
    } else {
      words.push_back(word + "=" + arguments[++i]);
    }
  }
  return words;
}

ConfigNode merge(const ConfigNode& base, const ConfigNode& later) {
  if (base.kind != Kind::kMap || later.kind != Kind::kMap) return later;
  ConfigNode merged = base;
  for (const auto& [key, value] : later.entries) {
    if (ConfigNode* found = merged.find(key)) {
      *found = merge(*found, value);
    } else {
      merged.entries.emplace_back(key, value);
    }
  }
  return merged;
}

std::string inline_yaml(const ConfigNode& node) {
  std::string out;
  switch (node.kind) {
    case Kind::kNull:
      return "null";
    case Kind::kScalar:
      return scalar_text(node.scalar, node.quoted);
    case Kind::kList:
      for (const auto& item : node.items) out += (out.empty() ? "" : ", ") + inline_yaml(item);
      return "[" + out + "]";
    case Kind::kMap:
      for (const auto& [key, value] : node.entries) {
        out += (out.empty() ? "" : ", ") + key_text(key) + ": " + inline_yaml(value);
      }
      return "{" + out + "}";
  }
  throw std::logic_error("ConfigNode of an unknown kind");
}

std::string to_yaml(const ConfigNode& node) {
  if (node.items.empty() && node.entries.empty()) return inline_yaml(node) + "\n";
  std::string out;
  write_block(node, 0, out);
  return out;
}

std::string to_json(const ConfigNode& node, int indent) {
  return json_of(node).dump(indent, ' ', /*ensure_ascii=*/false,
                            nlohmann::json::error_handler_t::replace);
}

}  // namespace tandem
