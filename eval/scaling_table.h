#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "eval/registry.h"

namespace tandem {

/// The law of one or two terms, as records and tables call its numbers.
struct LawNames {
  std::string fit, formula, floor;
  std::vector<std::string> coefficients, exponents;
};
extern const LawNames kOfSizeAndTokens, kOfCompute;
/// The names of its numbers: floor, then coefficient and exponent of each term.
std::vector<std::string> keys_of(const LawNames& names);

/// The records of `tandem eval scaling` as people read them.
EvalTable scaling_table(const std::vector<nlohmann::ordered_json>& records);

}  // namespace tandem
