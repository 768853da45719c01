#pragma once
#include <nlohmann/json.hpp>
#include <span>

#include "eval/registry.h"

namespace tandem {

/// Records of `tandem eval needle` as lengths by depths, with the mean at the right: for each
/// model, task and number of needles one line a length and score (exact, substring, decoys).
EvalTable needle_table(std::span<const nlohmann::ordered_json> records);

/// 256, 1K, 1M.
std::string short_length(int64_t tokens);

}  // namespace tandem
