// parse_json() on any bytes: a std::runtime_error "byte N: rule" or a value that survives being
// written and read again.
#include <cstdint>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <string_view>

#include "core/json_lines.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  nlohmann::ordered_json value;
  try {
    value = tandem::parse_json(text);
  } catch (const std::runtime_error& error) {
    const std::string_view message = error.what();
    if (!message.starts_with("byte ") || message.find('\n') != std::string_view::npos) std::abort();
    return 0;
  }
  if (!nlohmann::ordered_json::accept(text)) std::abort();  // stricter than nlohmann, never laxer
  const std::string written = value.dump();
  if (tandem::parse_json(written).dump() != written) std::abort();
  try {
    tandem::get_int(value, "a", -100, 100);
    tandem::get_string(value, "b");
  } catch (const std::runtime_error&) {
  }
  return 0;
}
