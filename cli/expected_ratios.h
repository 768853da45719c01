#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

namespace tandem {

/// What the vanilla model of "against_parameters" parameters should take over what a model of the
/// Block Transformer's paper takes, from the shapes of both, by the keys of a bench record; empty
/// for a model without such a counterpart.
nlohmann::ordered_json expected_ratios(const std::string& family, int64_t parameters);

}  // namespace tandem
