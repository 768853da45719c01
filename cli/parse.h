#pragma once
#include <CLI/CLI.hpp>
#include <optional>

namespace tandem {

/// Parses argv with `app`; an exit code when the command is over already (--help gives 0 and prints the help; a mistake gives 2 and prints one line
/// that names it and points to --help).
std::optional<int> parse_arguments(CLI::App& app, int argc, const char* const* argv);

}  // namespace tandem
