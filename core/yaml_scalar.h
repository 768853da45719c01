#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace tandem {

// How a scalar of a config is understood and written. Types come from the field that reads the
// text, not from YAML's own rules: `1e-3` and `.5` are numbers, 262144, 262_144 and 1e6 are
// integers, booleans are `true` and `false` only.

/// The integer that `text` spells exactly, or nothing: not a number, not integral, or beyond 64
/// bits.
std::optional<int64_t> yaml_integer(std::string_view text);
/// The number nearest to `text`, or nothing: not decimal (hex, inf, nan), or outside what a double
/// holds (1e400, 1e-400).
std::optional<double> yaml_number(std::string_view text);
std::optional<bool> yaml_boolean(std::string_view text);

/// Shortest text that yaml_number reads back to the same double: 0.00015, 1e-8, 640000.
std::string number_text(double value);

/// Unquoted, `text` would pass for a number, boolean, null, date or such in some YAML reader.
bool looks_typed(std::string_view text);
/// The scalar on one line of YAML, in double quotes where it must be: when it is no plain word, or
/// a string that looks_typed().
std::string scalar_text(std::string_view text, bool is_string);

}  // namespace tandem
