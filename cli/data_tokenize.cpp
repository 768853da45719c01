#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <thread>

#include "cli/data_commands.h"
#include "core/error.h"
#include "core/log.h"
#include "core/progress.h"
#include "data/tokenize.h"
#include "data/tokenizer.h"
#include "train/stop_signal.h"

namespace tandem {
namespace {

/// Bytes of the sources done, with the rate of this call in the note.
class TokenizeBar {
 public:
  void update(const TokenizeProgress& now) {
    if (!bar_) {
      first_ = now.packed_bytes;
      unit_ = now.packed_total < 10'000'000 ? 1'000 : 1'000'000;
      bar_.emplace("tokenize", now.packed_total / unit_, unit_ == 1'000 ? "kB" : "MB",
                   first_ / unit_);
    }
    const double seconds = std::chrono::duration<double>(Clock::now() - begin_).count();
    char rate[32];
    std::snprintf(rate, sizeof rate, "%.1f MB/s",
                  static_cast<double>(now.packed_bytes - first_) / 1e6 / std::max(seconds, 1e-3));
    bar_->update(now.packed_bytes / unit_,
                 std::string(rate) + ", " + with_commas(now.tokens) + " tokens");
  }
  void finish() {
    if (bar_) bar_->finish();
  }

 private:
  using Clock = std::chrono::steady_clock;
  std::optional<Progress> bar_;
  Clock::time_point begin_ = Clock::now();
  int64_t first_ = 0, unit_ = 1;
};

struct Tokenize {
  InputOptions input;
  std::string tokenizer, bos = "none", eos = "default", special_text = "text";
  TokenizeJob job;
  bool json = false;

  void add_to(CLI::App& command) {
    command.footer(
        "Stopped or killed, the same command goes on where it was.\n"
        "Example: tandem data tokenize --tokenizer tokenizer.model --input books/ --output "
        "data/books \\\n"
        "             --validation-output data/valid");
    command
        .add_option("--tokenizer", tokenizer,
                    "sentencepiece model, tokenizer.json, NAME.tiktoken, NAME:PATH, or `bytes`")
        ->required();
    input.add_to(command);
    command.add_option("--output", job.output, "Prefix of the token file")->required();
    auto* validation = command.add_option("--validation-output", job.validation_output,
                                          "Prefix of a second token file for held-out documents");
    command
        .add_option("--validation-fraction", job.validation_fraction, "Share of documents held out")
        ->capture_default_str()
        ->check(CLI::Range(0.0, 1.0))
        ->needs(validation);
    command.add_option("--seed", job.seed, "Decides which documents are held out")
        ->capture_default_str();
    command
        .add_option("--bos", bos,
                    "Put before each document: none, default (the tokenizer's), or a special token")
        ->capture_default_str();
    command
        .add_option("--eos", eos,
                    "Put behind each document: default (the tokenizer's), none, or a special token")
        ->capture_default_str();
    command
        .add_option("--special-text", special_text,
                    "What the text of a special token becomes where a document holds it: text, or "
                    "ids, its id")
        ->capture_default_str()
        ->check(CLI::IsMember({"text", "ids"}));
    job.threads = std::max(1u, std::thread::hardware_concurrency());
    command
        .add_option("--threads", job.threads, "Threads that encode; the result is the same for any")
        ->capture_default_str()
        ->check(CLI::Range(1, 1024));
    command.add_flag("--json", json, "Print the summary as JSON");
  }

  /// The id that `word` means; `own` is the tokenizer's.
  std::optional<int32_t> special(const char* flag, const std::string& word,
                                 std::optional<int32_t> own, const Tokenizer& names) const {
    if (word == "none") return std::nullopt;
    const auto id = word == "default" ? own : names.special_id(word);
    if (!id) {
      const std::string what =
          word == "default" ? "no token of its own for it" : "no token " + word;
      throw bad_usage(std::string(flag) + " " + word + ": " + tokenizer + " has " + what +
                      "; name a special token, or none");
    }
    return id;
  }

  int run() {
    const auto text_to_ids = load_tokenizer(tokenizer);
    job.input = input.path;
    job.documents = input.documents;
    job.max_bad_lines = input.max_bad_lines;
    job.bos = special("--bos", bos, text_to_ids->bos(), *text_to_ids);
    job.eos = special("--eos", eos, text_to_ids->eos(), *text_to_ids);
    job.specials = special_text == "ids" ? Specials::kAsIds : Specials::kAsText;

    const StopSignal signal;
    TokenizeBar bar;
    const auto manifest = tokenize(
        *text_to_ids, job, [&](const TokenizeProgress& now) { bar.update(now); },
        [&] { return signal.received() != 0; });
    bar.finish();
    if (!manifest) {
      log_line("stopped; the same command goes on from here");
      return 128 + signal.received();
    }
    print_result(summary(*manifest), json);
    return kExitDone;
  }

  nlohmann::ordered_json summary(const nlohmann::ordered_json& manifest) const {
    const auto& read = manifest.at("input");
    DocumentCounts counts;
    counts.bad_lines = read.at("bad_lines");
    counts.repaired = read.at("repaired");
    counts.first_errors = read.at("first_errors").get<std::vector<std::string>>();
    report_counts(counts);
    nlohmann::ordered_json result = {{"output", job.output},
                                     {"documents", manifest.at("documents")},
                                     {"tokens", manifest.at("tokens")}};
    int64_t tokens = manifest.at("tokens"), empty = manifest.at("empty_documents");
    if (!job.validation_output.empty()) {
      const auto held_out = read_token_manifest(job.validation_output).value();
      result["validation_output"] = job.validation_output;
      result["validation_documents"] = held_out.at("documents");
      result["validation_tokens"] = held_out.at("tokens");
      tokens += held_out.at("tokens").get<int64_t>();
      empty += held_out.at("empty_documents").get<int64_t>();
    }
    result["bytes"] = read.at("bytes");
    result["bytes_per_token"] = read.at("bytes").get<double>() / static_cast<double>(tokens);
    result["empty_documents"] = empty;
    result["bad_lines"] = read.at("bad_lines");
    return result;
  }
};

}  // namespace

DataCommand add_tokenize(CLI::App& app) {
  const auto command = std::make_shared<Tokenize>();
  command->add_to(
      *app.add_subcommand("tokenize", "Turn text into a token file, PREFIX.bin and PREFIX.idx"));
  return [command] { return command->run(); };
}

}  // namespace tandem
