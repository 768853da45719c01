#pragma once
#include <CLI/CLI.hpp>
#include <functional>

namespace tandem {

/// `tandem bench loader`: whether a training loop of a given pace would wait for its rows. Adds the command to `app` and gives what runs it and returns the exit code.
std::function<int()> add_loader_bench(CLI::App& app);

}  // namespace tandem
