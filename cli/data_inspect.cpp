#include <algorithm>
#include <memory>

#include "cli/data_commands.h"
#include "cli/output.h"
#include "core/error.h"
#include "core/file.h"
#include "core/log.h"
#include "data/tokenize.h"
#include "data/tokenizer.h"

namespace tandem {
namespace {

using Json = nlohmann::ordered_json;

/// Lengths whose share of tokens is told: what long-context stages can draw on.
constexpr int64_t kLongLengths[] = {4096, 32768, 65536, 262144, 1048576};

struct Inspect {
  TokenFileOptions file;
  std::string tokenizer;
  int64_t documents = 2, first = 0, shown_tokens = 64;
  bool json = false;

  void add_to(CLI::App& command) {
    command.footer(
        "Example: tandem data inspect data/books --tokenizer tokenizer.model --documents 3");
    file.add_to(command);
    command.add_option("--tokenizer", tokenizer,
                       "Decodes the documents shown; default: the one that the manifest names, "
                       "where it is still there");
    command.add_option("--documents", documents, "How many documents to show the beginning of")
        ->capture_default_str()
        ->check(CLI::NonNegativeNumber);
    command.add_option("--first", first, "The first document shown, counted from 0")
        ->capture_default_str()
        ->check(CLI::NonNegativeNumber);
    command.add_option("--tokens", shown_tokens, "Tokens shown of each")
        ->capture_default_str()
        ->check(CLI::PositiveNumber);
    command.add_flag("--json", json, "Print as JSON");
  }

  int run() {
    const TokenFile tokens = file.open();
    const auto manifest = read_token_manifest(tokens.prefix());
    Json result = {{"path", tokens.prefix()},
                   {"format", tokens.format()},
                   {"dtype", tokens.dtype()},
                   {"documents", tokens.documents()},
                   {"tokens", tokens.tokens()}};
    add_lengths(tokens, result);
    if (manifest) {
      result["tokenizer"] = manifest->at("tokenizer").at("name");
      result["input"] = manifest->at("input").at("path");
    }
    const auto names = tokenizer_of(manifest);
    const Json shown = first_documents(tokens, names.get());
    if (json) {
      result["first_documents"] = shown;
      print_result(result, true);
      return kExitDone;
    }
    print_result(result, false);
    for (const auto& entry : shown) print_document(entry);
    return kExitDone;
  }

  static void add_lengths(const TokenFile& tokens, Json& result) {
    std::vector<int64_t> lengths;
    for (int64_t d = 0; d < tokens.documents(); ++d) lengths.push_back(tokens.document_length(d));
    if (lengths.empty()) return;
    std::sort(lengths.begin(), lengths.end());
    const auto at = [&](size_t percent) { return lengths[(lengths.size() - 1) * percent / 100]; };
    result["shortest"] = at(0);
    result["tenth_percentile"] = at(10);
    result["median"] = at(50);
    result["ninetieth_percentile"] = at(90);
    result["longest"] = at(100);
    for (const int64_t least : kLongLengths) {
      const auto from = std::lower_bound(lengths.begin(), lengths.end(), least);
      if (from == lengths.end()) break;
      int64_t sum = 0;
      for (auto length = from; length != lengths.end(); ++length) sum += *length;
      result["tokens_from_" + std::to_string(least)] = sum;  // in documents of at least so many
    }
  }

  /// Null where none was given and the manifest's is not there, or is another one by now.
  std::unique_ptr<Tokenizer> tokenizer_of(const std::optional<Json>& manifest) const {
    if (!tokenizer.empty()) return load_tokenizer(tokenizer);
    if (!manifest) return nullptr;
    const auto name = manifest->at("tokenizer").at("name").get<std::string>();
    try {
      auto named = load_tokenizer(name);
      if (tokenizer_hash(*named) == manifest->at("tokenizer").at("sha256")) return named;
      log_warning(named->name() + " is not the tokenizer any more that made these tokens");
    } catch (const UserError& error) {  // moved or removed
      log_warning("cannot load the tokenizer " + one_line(name) + " that made these tokens (" +
                  error.what() + "); their ids are shown, and --tokenizer can name it");
    }
    return nullptr;
  }

  Json first_documents(const TokenFile& tokens, const Tokenizer* names) const {
    Json shown = Json::array();
    const int64_t left = std::max<int64_t>(tokens.documents() - first, 0);
    for (int64_t d = first, end = first + std::min(documents, left); d < end; ++d) {
      const int64_t length = tokens.document_length(d);
      std::vector<int64_t> begin(static_cast<size_t>(std::min(shown_tokens, length)));
      tokens.read(tokens.document_begins()[d], begin);
      Json entry = {{"document", d}, {"length", length}, {"tokens", begin}};
      if (names) {
        std::vector<int32_t> ids;  // an id beyond 31 bits is in no vocabulary
        for (const int64_t token : begin)
          ids.push_back(token <= INT32_MAX ? static_cast<int32_t>(token) : -1);
        entry["text"] = names->decode(ids);
      }
      shown.push_back(std::move(entry));
    }
    return shown;
  }

  static void print_document(const Json& entry) {
    const bool whole = entry["tokens"].size() == entry["length"].get<size_t>();
    const std::string text =
        entry.contains("text") ? entry["text"].get<std::string>() : entry["tokens"].dump();
    print("\ndocument " + with_commas(entry["document"]) + ", " + with_commas(entry["length"]) +
          " tokens" + (whole ? "" : ", the beginning") + "\n" + text + "\n");
  }
};

}  // namespace

DataCommand add_inspect(CLI::App& app) {
  const auto command = std::make_shared<Inspect>();
  command->add_to(*app.add_subcommand("inspect", "Show what a token file holds"));
  return [command] { return command->run(); };
}

}  // namespace tandem
