#include <cstdio>
#include <utility>
#include <vector>

#include "cli/commands.h"
#include "cli/data_commands.h"
#include "cli/output.h"
#include "cli/parse.h"
#include "core/error.h"
#include "core/log.h"

namespace tandem {
namespace {

std::string shown(const nlohmann::ordered_json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_number_integer()) return with_commas(value.get<long long>());
  if (!value.is_number_float()) return value.dump();
  char text[32];
  std::snprintf(text, sizeof text, "%.4g", value.get<double>());
  return text;
}

}  // namespace

void InputOptions::add_to(CLI::App& command) {
  command
      .add_option("--input", path,
                  "Text or JSONL (.jsonl) file, also .gz and .zst, or a folder of them")
      ->required();
  command
      .add_option("--json-key", documents.json_keys,
                  "Key of the text in JSONL; of several the first that a line has")
      ->capture_default_str();
  command
      .add_option_function<std::string>(
          "--split",
          [this](const std::string& word) {
            documents.split = word == "file" ? SplitText::kFile : SplitText::kBlankLine;
          },
          "What is a document in other text files")
      ->default_str("file")
      ->check(CLI::IsMember({"file", "blank-line"}));
  command
      .add_option("--max-bad-lines", max_bad_lines, "Share of bad JSONL lines above which it stops")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 1.0));
}

void TokenFileOptions::add_to(CLI::App& command) {
  command
      .add_option("path", spec.path,
                  "Indexed dataset with or without .bin or .idx, packed chunks without "
                  "_0000000000.bin, or a headerless file")
      ->required();
  command.add_option("--dtype", spec.dtype, "Of a headerless file")
      ->check(CLI::IsMember({"uint16", "uint32"}));
  command
      .add_option("--eos-id", spec.eos_id,
                  "Ends each document of a headerless file and of packed chunks")
      ->check(CLI::NonNegativeNumber);
}

void print_result(const nlohmann::ordered_json& result, bool as_json) {
  if (as_json) return print(result.dump() + "\n");
  std::string text;
  for (const auto& [name, value] : result.items()) {
    if (value.is_structured()) continue;
    std::string label = name + ":";
    label.resize(std::max<size_t>(label.size(), 22), ' ');
    text += label + " " + shown(value) + "\n";
  }
  print(text);
}

void report_counts(const DocumentCounts& counts) {
  for (const auto& error : counts.first_errors) log_warning(error);
  const auto more = counts.bad_lines - static_cast<int64_t>(counts.first_errors.size());
  if (more > 0) log_warning(with_commas(more) + " more bad lines");
  if (counts.repaired > 0) {
    log_warning("invalid UTF-8 replaced in " + with_commas(counts.repaired) + " documents");
  }
}

int run_data(int argc, const char* const* argv) {
  CLI::App app("Prepare text for training", argv[0]);
  app.footer(
      "Example: tandem data tokenize --tokenizer bytes --input books.txt --output data/books");
  app.require_subcommand(1);
  std::vector<DataCommand> commands;
  for (const auto add : {add_train_tokenizer, add_tokenize, add_inspect, add_verify, add_retrieval})
    commands.push_back(add(app));
  if (const auto code = parse_arguments(app, argc, argv)) return *code;
  const auto all = app.get_subcommands([](const CLI::App*) { return true; });  // as they were added
  for (size_t i = 0; i < all.size(); ++i) {
    if (all[i]->parsed()) return commands[i]();
  }
  return kExitInternal;
}

}  // namespace tandem
