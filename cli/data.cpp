#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "cli/commands.h"
#include "cli/parse.h"
#include "core/error.h"
#include "core/file.h"
#include "core/log.h"
#include "core/progress.h"
#include "core/random.h"
#include "data/documents.h"
#include "data/token_file.h"
#include "data/tokenizer.h"
#include "data/tokenizer_trainer.h"

namespace tandem {
namespace {

using Json = nlohmann::ordered_json;

/// What the four commands print: one JSON line, or one `name: value` a line.
void print_result(const Json& result, bool as_json) {
  if (as_json) {
    std::printf("%s\n", result.dump().c_str());
    return;
  }
  for (const auto& [name, value] : result.items()) {
    std::string shown = value.dump();
    if (value.is_string()) shown = value.get<std::string>();
    if (value.is_number_integer()) shown = with_commas(value.get<long long>());
    if (value.is_number_float()) {
      char text[32];
      std::snprintf(text, sizeof text, "%.4g", value.get<double>());
      shown = text;
    }
    std::printf("%-18s %s\n", (name + ":").c_str(), shown.c_str());
  }
}

/// Tells of lines that could not be used; with `strict` they are an error.
void report_counts(const std::string& path, const DocumentCounts& counts, bool strict) {
  for (const auto& error : counts.first_errors) log_warning(error);
  const auto more = counts.bad_lines - static_cast<int64_t>(counts.first_errors.size());
  if (more > 0) log_warning(with_commas(more) + " more bad lines");
  if (counts.repaired > 0) {
    log_warning("invalid UTF-8 replaced in " + with_commas(counts.repaired) + " documents");
  }
  if (strict && counts.bad_lines > 0) {
    throw bad_file(path, with_commas(counts.bad_lines) + " bad lines, and --strict was given");
  }
}

struct TrainTokenizer {
  std::string input, output, json_key = "text";
  TokenizerTraining training;
  bool strict = false, json = false;

  CLI::App* add_to(CLI::App& app) {
    auto* command =
        app.add_subcommand("train-tokenizer", "Learn a sentencepiece vocabulary from text");
    command->footer(
        "Example: tandem data train-tokenizer --input books/ --vocab-size 8192 --output "
        "tokenizer.model");
    command->add_option("--input", input, "Text or JSONL file, or a folder of them")->required();
    command->add_option("--output", output, "Where the model is written")->required();
    command
        ->add_option("--vocab-size", training.vocab_size, "Number of ids, the 256 bytes included")
        ->capture_default_str()
        ->check(CLI::Range(260, 1'000'000));
    command->add_option("--model", training.model, "Kind of vocabulary")
        ->capture_default_str()
        ->check(CLI::IsMember({"bpe", "unigram"}));
    command->add_option("--json-key", json_key, "Key of the text in JSONL")->capture_default_str();
    command->add_option("--max-sentences", training.max_sentences, "Lines used; more are sampled")
        ->capture_default_str()
        ->check(CLI::PositiveNumber);
    command
        ->add_option("--threads", training.threads,
                     "Threads; with unigram the result depends on it")
        ->capture_default_str()
        ->check(CLI::Range(1, 1024));
    command->add_flag("--strict", strict, "Bad JSONL lines are an error");
    command->add_flag("--json", json, "Print the result as JSON");
    return command;
  }

  int run() {
    log_line("learning " + with_commas(training.vocab_size) + " pieces from " + input);
    const auto counts = train_tokenizer(input, json_key, training, output);
    report_counts(input, counts, strict);
    print_result({{"tokenizer", output},
                  {"vocab_size", load_tokenizer(output)->vocab_size()},
                  {"documents", counts.documents},
                  {"bytes", counts.bytes},
                  {"bad_lines", counts.bad_lines}},
                 json);
    return kExitDone;
  }
};

/// Chooses a fraction of all documents by their running number, spread evenly: of each 1 / fraction
/// documents in a row one is chosen, at a place that the seed decides.
class Split {
 public:
  Split(double fraction, uint64_t seed)
      : fraction_(fraction), stream_(RandomStream(seed).fork("validation split")) {}

  bool chosen(int64_t document) const {
    if (fraction_ <= 0) return false;
    const auto at = static_cast<double>(document);
    const auto first = static_cast<uint64_t>(at * fraction_);
    const auto last = static_cast<uint64_t>((at + 1) * fraction_);
    for (uint64_t stratum = first; stratum <= last; ++stratum) {
      const double place = (static_cast<double>(stratum) + stream_.uniform(stratum)) / fraction_;
      if (std::floor(place) == at) return true;
    }
    return false;
  }

 private:
  double fraction_;
  RandomStream stream_;
};

struct Tokenize {
  std::string tokenizer, input, output, json_key = "text", split = "file", validation_output;
  double validation_fraction = 0.05;
  uint64_t seed = 0;
  bool no_eos = false, strict = false, json = false;

  CLI::App* add_to(CLI::App& app) {
    auto* command =
        app.add_subcommand("tokenize", "Turn text into a token file, PREFIX.bin and PREFIX.idx");
    command->footer(
        "Example: tandem data tokenize --tokenizer tokenizer.model --input books/ --output "
        "data/books \\\n"
        "             --validation-output data/valid");
    command->add_option("--tokenizer", tokenizer, "sentencepiece model, or `bytes`")->required();
    command
        ->add_option("--input", input,
                     "Text or JSONL (.jsonl, .jsonl.zst) file, or a folder of them")
        ->required();
    command->add_option("--output", output, "Prefix of the token file")->required();
    command->add_option("--json-key", json_key, "Key of the text in JSONL")->capture_default_str();
    command->add_option("--split", split, "What is a document in other text files")
        ->capture_default_str()
        ->check(CLI::IsMember({"file", "blank-line"}));
    auto* validation = command->add_option("--validation-output", validation_output,
                                           "Prefix of a second token file for held-out documents");
    command->add_option("--validation-fraction", validation_fraction, "Share of documents held out")
        ->capture_default_str()
        ->check(CLI::Range(0.0, 1.0))
        ->needs(validation);
    command->add_option("--seed", seed, "Decides which documents are held out")
        ->capture_default_str();
    command->add_flag("--no-eos", no_eos, "Append no end-of-text token to documents");
    command->add_flag("--strict", strict, "Bad JSONL lines are an error");
    command->add_flag("--json", json, "Print the summary as JSON");
    return command;
  }

  int run() {
    const auto place = [](const std::string& prefix) {
      return std::filesystem::absolute(prefix).lexically_normal();
    };
    if (!validation_output.empty() && place(output) == place(validation_output))
      throw bad_usage("--output and --validation-output are both " + output);
    const auto text_to_ids = load_tokenizer(tokenizer);
    if (!no_eos && !text_to_ids->eos()) {
      throw bad_usage(tokenizer + " has no end-of-text token; pass --no-eos");
    }
    TokenFileWriter train(output, text_to_ids->vocab_size());
    std::unique_ptr<TokenFileWriter> validation;
    if (!validation_output.empty()) {
      validation = std::make_unique<TokenFileWriter>(validation_output, text_to_ids->vocab_size());
    }
    const Split held_out(validation ? validation_fraction : 0, seed);
    Progress progress("tokenize", 0, "documents");
    int64_t document = 0;
    const auto counts = for_each_document(
        input, json_key, split == "file" ? SplitText::kFile : SplitText::kBlankLine,
        [&](std::string_view text) {
          auto ids = text_to_ids->encode(text);
          if (!ids.empty() && !no_eos) ids.push_back(*text_to_ids->eos());
          (held_out.chosen(document) ? *validation : train).add_document(ids);
          progress.update(++document, with_commas(train.tokens()) + " tokens");
        });
    progress.finish();
    report_counts(input, counts, strict);
    if (counts.documents == 0) throw bad_file(input, "holds no documents");
    for (const auto* part : {&train, validation.get()}) {
      if (part != nullptr && part->documents() == 0) {
        throw bad_usage((part == &train ? output : validation_output) +
                        " would be empty: " + input + " holds " + with_commas(counts.documents) +
                        " documents; try --split blank-line or another --validation-fraction");
      }
    }
    train.finish();
    if (validation) validation->finish();

    const int64_t tokens = train.tokens() + (validation ? validation->tokens() : 0);
    Json result = {
        {"output", output}, {"documents", train.documents()}, {"tokens", train.tokens()}};
    if (validation) {
      result["validation_output"] = validation_output;
      result["validation_documents"] = validation->documents();
      result["validation_tokens"] = validation->tokens();
    }
    result["bytes"] = counts.bytes;
    result["bytes_per_token"] = static_cast<double>(counts.bytes) / static_cast<double>(tokens);
    result["empty_documents"] =
        train.skipped_empty() + (validation ? validation->skipped_empty() : 0);
    result["bad_lines"] = counts.bad_lines;
    print_result(result, json);
    return kExitDone;
  }
};

struct Inspect {
  std::string prefix, tokenizer;
  int64_t documents = 2;
  bool json = false;

  CLI::App* add_to(CLI::App& app) {
    auto* command = app.add_subcommand("inspect", "Show what a token file holds");
    command->footer(
        "Example: tandem data inspect data/books --tokenizer tokenizer.model --documents 3");
    command->add_option("prefix", prefix, "Token file, with or without .bin or .idx")->required();
    command->add_option("--tokenizer", tokenizer,
                        "Decode the documents shown: a sentencepiece model, or `bytes`");
    command->add_option("--documents", documents, "How many documents to show the beginning of")
        ->capture_default_str()
        ->check(CLI::NonNegativeNumber);
    command->add_flag("--json", json, "Print as JSON");
    return command;
  }

  int run() {
    constexpr int64_t kShown = 64;  // tokens of each document
    const TokenFile file(prefix);
    std::vector<int64_t> lengths;
    for (int64_t d = 0; d < file.documents(); ++d) lengths.push_back(file.document_length(d));
    std::sort(lengths.begin(), lengths.end());
    Json result = {{"prefix", file.prefix()},
                   {"dtype", token_dtype_name(file.dtype_code())},
                   {"documents", file.documents()},
                   {"tokens", file.tokens()}};
    if (!lengths.empty()) {
      result["shortest"] = lengths.front();
      result["median"] = lengths[(lengths.size() - 1) / 2];
      result["longest"] = lengths.back();
    }
    const auto names = tokenizer.empty() ? nullptr : load_tokenizer(tokenizer);
    Json shown = Json::array();
    for (int64_t d = 0; d < std::min(documents, file.documents()); ++d) {
      std::vector<int64_t> tokens(static_cast<size_t>(std::min(kShown, file.document_length(d))));
      file.read(file.document_begins()[d], tokens);
      Json entry = {{"document", d}, {"length", file.document_length(d)}, {"tokens", tokens}};
      if (names) {
        std::vector<int32_t> ids;  // an id beyond 31 bits is in no vocabulary
        for (const int64_t token : tokens)
          ids.push_back(token <= INT32_MAX ? static_cast<int32_t>(token) : -1);
        entry["text"] = names->decode(ids);
      }
      shown.push_back(std::move(entry));
    }
    if (json) {
      result["first_documents"] = std::move(shown);
      print_result(result, true);
      return kExitDone;
    }
    print_result(result, false);
    for (const auto& entry : shown) {
      const bool whole = entry["tokens"].size() == entry["length"].get<size_t>();
      std::printf("\ndocument %s, %s tokens%s\n", with_commas(entry["document"]).c_str(),
                  with_commas(entry["length"]).c_str(), whole ? "" : ", the beginning");
      const std::string text = names ? entry["text"].get<std::string>() : entry["tokens"].dump();
      std::fwrite(text.data(), 1, text.size(), stdout);  // it may hold NUL
      std::putchar('\n');
    }
    return kExitDone;
  }
};

struct Verify {
  std::string prefix, tokenizer;
  bool json = false;

  CLI::App* add_to(CLI::App& app) {
    auto* command =
        app.add_subcommand("verify", "Check a token file from end to end; exit code 66 on damage");
    command->footer(
        "PREFIX.weights, the weight of each token in the loss, is checked too where there is one.\n"
        "Example: tandem data verify data/books --tokenizer tokenizer.model");
    command->add_option("prefix", prefix, "Token file, with or without .bin or .idx")->required();
    command->add_option("--tokenizer", tokenizer, "Check that its vocabulary holds every token");
    command->add_flag("--json", json, "Print as JSON");
    return command;
  }

  int run() {
    constexpr int64_t kChunk = 1 << 16;
    const TokenFile file(prefix);  // checks all of .idx
    const auto names = tokenizer.empty() ? nullptr : load_tokenizer(tokenizer);
    int64_t largest = -1;
    Progress progress("verify", file.tokens(), "tokens");
    std::vector<int64_t> tokens;
    for (int64_t begin = 0; begin < file.tokens(); begin += kChunk) {
      tokens.resize(static_cast<size_t>(std::min(kChunk, file.tokens() - begin)));
      file.read(begin, tokens);  // refuses negative tokens
      for (size_t i = 0; i < tokens.size(); ++i) {
        if (names && tokens[i] >= names->vocab_size()) {
          throw bad_file(file.prefix() + ".bin",
                         "token " + std::to_string(begin + static_cast<int64_t>(i)) + " is " +
                             std::to_string(tokens[i]) + ", the vocabulary of " + tokenizer +
                             " has " + std::to_string(names->vocab_size()));
        }
        largest = std::max(largest, tokens[i]);
      }
      progress.update(begin + static_cast<int64_t>(tokens.size()));
    }
    progress.finish();
    Json result = {{"prefix", file.prefix()},
                   {"documents", file.documents()},
                   {"tokens", file.tokens()},
                   {"largest_token", largest},
                   {"content_hash", file.content_hash()}};
    if (exists(file.prefix() + ".weights")) add_weights(result);
    print_result(result, json);
    return kExitDone;
  }

  void add_weights(Json& result) const {
    constexpr int64_t kChunk = 1 << 16;
    const TokenFile file(prefix, TargetWeights::kRead);
    int64_t weighed = 0;
    double sum = 0;
    std::vector<float> weights;
    for (int64_t begin = 0; begin < file.tokens(); begin += kChunk) {
      weights.resize(static_cast<size_t>(std::min(kChunk, file.tokens() - begin)));
      file.read_weights(begin, weights);  // refuses what is not finite and >= 0
      for (const float weight : weights) {
        weighed += weight > 0;
        sum += static_cast<double>(weight);
      }
    }
    result["tokens_with_weight"] = weighed;
    result["weight"] = sum;
    result["content_hash_with_weights"] = file.content_hash();
  }
};

}  // namespace

int run_data(int argc, const char* const* argv) {
  CLI::App app("Prepare text for training", argv[0]);
  app.footer(
      "Example: tandem data tokenize --tokenizer bytes --input books.txt --output data/books");
  app.require_subcommand(1);
  TrainTokenizer train_tokenizer;
  Tokenize tokenize;
  Inspect inspect;
  Verify verify;
  const auto* train_command = train_tokenizer.add_to(app);
  const auto* tokenize_command = tokenize.add_to(app);
  const auto* inspect_command = inspect.add_to(app);
  verify.add_to(app);
  if (const auto code = parse_arguments(app, argc, argv)) return *code;
  if (train_command->parsed()) return train_tokenizer.run();
  if (tokenize_command->parsed()) return tokenize.run();
  if (inspect_command->parsed()) return inspect.run();
  return verify.run();
}

}  // namespace tandem
