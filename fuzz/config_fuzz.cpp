// Any bytes either parse or are refused with a UserError, and what parsed is written as YAML that
// parses to an equal node.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>

#include "core/config_node.h"
#include "core/error.h"

namespace {

constexpr size_t kMaxBytes = size_t{1} << 20;  // what parse_yaml takes

void require_round_trip(const tandem::ConfigNode& node, const std::string& yaml) {
  if (yaml.size() > kMaxBytes) return;  // quotes and indentation may take it over the limit
  if (!(tandem::parse_yaml(yaml, "written") == node)) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  std::optional<tandem::ConfigNode> node;
  try {
    node = tandem::parse_yaml(text, "input");
  } catch (const tandem::UserError&) {
    return 0;
  }
  require_round_trip(*node, tandem::to_yaml(*node));
  require_round_trip(*node, tandem::inline_yaml(*node));
  (void)tandem::to_json(*node);
  return 0;
}
