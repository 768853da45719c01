#pragma once
#include <CLI/CLI.hpp>
#include <functional>

namespace tandem {

/// `tandem bench tokenizer`: MB (10^6 bytes) of text encoded a second, from memory to memory. Adds the command to `app` and gives what runs it and returns the exit code.
std::function<int()> add_tokenizer_bench(CLI::App& app);

}  // namespace tandem
