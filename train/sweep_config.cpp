#include "train/sweep_config.h"

#include <algorithm>
#include <cctype>

namespace tandem {
namespace {

bool fits_name(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '_' || c == '+' ||
         c == '-';
}

}  // namespace

void StepsRule::check(Checker& check) const {
  const int given = tokens.has_value() + tokens_per_parameter.has_value() + flops.has_value();
  check.require(given == 1, "tokens", std::to_string(given) + " of three given",
                "one of tokens, tokens_per_parameter and flops");
  check.require(tokens_per_parameter || !check.written("parameters"), "parameters", parameters,
                "nothing without tokens_per_parameter");
}

void SweepEntry::check(Checker& check) const {
  check.require(is_run_name(name), "name", name.empty() ? "absent" : name,
                "letters, digits and . _ + - only, no dot in front");
}

bool is_run_name(const std::string& name) {
  return !name.empty() && name.front() != '.' && std::all_of(name.begin(), name.end(), fits_name);
}

std::string as_run_name(std::string text) {
  std::replace_if(
      text.begin(), text.end(), [](char c) { return !fits_name(c); }, '_');
  return text;
}

}  // namespace tandem
