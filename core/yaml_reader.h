#pragma once
#include <cstddef>
#include <string>
#include <string_view>

#include "core/config_node.h"

namespace tandem {

constexpr size_t kMaxYamlBytes = size_t{1} << 20;  ///< of a config

/// Where YAML text comes from.
struct YamlSource {
  std::string name;       // of the file, or "command line"
  bool has_lines = true;  // false: origins carry no line
  std::string key;        // the key that the text is the value of, for messages
  int depth = 0;          // maps and lists already around it
};

/// Reads one document under the rules of parse_yaml(); an empty one is a null node.
ConfigNode read_yaml(std::string_view text, const YamlSource& source);

}  // namespace tandem
