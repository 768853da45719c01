#pragma once
#include <nlohmann/json.hpp>

namespace tandem {

/// Flops or StateBytes by part, and their "total".
nlohmann::ordered_json by_part(const auto& cost) {
  nlohmann::ordered_json json;
  for (const auto& [part, value] : cost.parts) json[part] = value;
  json["total"] = cost.total();
  return json;
}

}  // namespace tandem
