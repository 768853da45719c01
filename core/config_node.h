#pragma once
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/error.h"

namespace tandem {

/// One value of a config as it was written, with the place it came from. Comes before any type is known.
struct ConfigNode {
  enum class Kind { kNull, kScalar, kList, kMap };
  Kind kind = Kind::kNull;
  std::string scalar;    // text of a scalar
  bool quoted = false;   // "8" and '8' are strings, never numbers
  std::vector<ConfigNode> items;                              // of a list
  std::vector<std::pair<std::string, ConfigNode>> entries;    // of a map, in written order
  Origin origin;                                              // of a map's entry: the line of its key

  // Defined in the .cpp: std::pair asks for them while a ConfigNode inside it is still incomplete, which clang refuses.
  ConfigNode();
  ConfigNode(const ConfigNode&);
  ConfigNode(ConfigNode&&) noexcept;
  ConfigNode& operator=(const ConfigNode&);
  ConfigNode& operator=(ConfigNode&&) noexcept;
  ~ConfigNode();

  const ConfigNode* find(std::string_view key) const;  ///< entry of a map or nullptr
  ConfigNode* find(std::string_view key);
  /// Same values. Origins do not count, quotes only around what else could be a number or such.
  bool operator==(const ConfigNode& other) const;

  static ConfigNode make_scalar(std::string text, bool quoted = false);
  static ConfigNode make_map();
  static ConfigNode make_list();
};

/// Reads one YAML document. Refused with file and line (exit code 2): syntax errors, duplicate keys, anchors, aliases,
/// tags, more than one document, files over 1 MiB, nesting over 64. A missing file has exit code 66. An empty document is an empty map.
ConfigNode parse_yaml_file(const std::string& path);
ConfigNode parse_yaml(std::string_view text, const std::string& name);

/// Sets one key from a word `a.b[0].c=VALUE`; VALUE is YAML (`[1, 2]`, `{...}`, `null`). Maps on the way are made; a list
/// index must exist. Where `null` replaces a section, the section is absent.
void apply_override(ConfigNode& root, std::string_view word);

/// Splits arguments into overrides: accepts `a.b=v`, `--a.b=v` and `--a.b v`.
std::vector<std::string> override_words(const std::vector<std::string>& arguments);

/// `later` over `base`, section by section: maps are merged by key, everything else is replaced (stages, sweeps).
ConfigNode merge(const ConfigNode& base, const ConfigNode& later);

/// Block style YAML that parse_yaml reads back to an equal node. Short lists and maps of scalars stay on one line.
std::string to_yaml(const ConfigNode& node);
/// The same on one line: `{name: sliding_window, window: 256}`.
std::string inline_yaml(const ConfigNode& node);
/// The same as JSON; unquoted numbers and booleans stay numbers and booleans.
std::string to_json(const ConfigNode& node, int indent = 2);

}  // namespace tandem
