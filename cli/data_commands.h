#pragma once
#include <CLI/CLI.hpp>
#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "data/documents.h"
#include "data/token_file.h"

// The parts of `tandem data`, a file each.

namespace tandem {

/// A subcommand: adds itself to `app` with its options, and gives what runs it and returns the exit code.
using DataCommand = std::function<int()>;
DataCommand add_train_tokenizer(CLI::App& app);
DataCommand add_tokenize(CLI::App& app);
DataCommand add_inspect(CLI::App& app);
DataCommand add_verify(CLI::App& app);
DataCommand add_retrieval(CLI::App& app);

/// Which documents `--input` holds and how many bad lines are let pass.
struct InputOptions {
  std::string path;
  DocumentOptions documents;
  double max_bad_lines = 0.01;
  void add_to(CLI::App& command);
};

/// The token file that a command looks at.
struct TokenFileOptions {
  TokenFileSpec spec;
  void add_to(CLI::App& command);
  TokenFile open() const { return TokenFile(spec); }
};

/// One JSON line, or one `name: value` a line; values that are lists or maps only in JSON.
void print_result(const nlohmann::ordered_json& result, bool as_json);

/// Warns of what reading met: the first bad lines, how many more there are, what was replaced.
void report_counts(const DocumentCounts& counts);

}  // namespace tandem
