#include <memory>

#include "cli/data_commands.h"
#include "core/error.h"
#include "core/log.h"
#include "data/tokenizer.h"
#include "data/tokenizer_trainer.h"

namespace tandem {
namespace {

struct TrainTokenizer {
  InputOptions input;
  std::string output;
  TokenizerTraining training;
  bool json = false;

  void add_to(CLI::App& command) {
    command.footer(
        "Example: tandem data train-tokenizer --input books/ --vocab-size 8192 --output "
        "tokenizer.model");
    input.add_to(command);
    command.add_option("--output", output, "Where the model is written")->required();
    command
        .add_option("--vocab-size", training.vocab_size, "Number of ids, the 256 bytes included")
        ->capture_default_str()
        ->check(CLI::Range(260, 1'000'000));
    command.add_option("--model", training.model, "Kind of vocabulary")
        ->capture_default_str()
        ->check(CLI::IsMember({"bpe", "unigram"}));
    command.add_option("--max-sentences", training.max_sentences, "Lines used; more are sampled")
        ->capture_default_str()
        ->check(CLI::PositiveNumber);
    command
        .add_option("--threads", training.threads, "Threads; with unigram the result depends on it")
        ->capture_default_str()
        ->check(CLI::Range(1, 1024));
    command.add_flag("--json", json, "Print the result as JSON");
  }

  int run() {
    log_line("learning " + with_commas(training.vocab_size) + " pieces from " + input.path);
    const auto counts =
        train_tokenizer(input.path, input.documents, training, input.max_bad_lines, output);
    report_counts(counts);
    print_result({{"tokenizer", output},
                  {"vocab_size", load_tokenizer(output)->vocab_size()},
                  {"documents", counts.documents},
                  {"bytes", counts.bytes},
                  {"bad_lines", counts.bad_lines}},
                 json);
    return kExitDone;
  }
};

}  // namespace

DataCommand add_train_tokenizer(CLI::App& app) {
  const auto command = std::make_shared<TrainTokenizer>();
  command->add_to(
      *app.add_subcommand("train-tokenizer", "Learn a sentencepiece vocabulary from text"));
  return [command] { return command->run(); };
}

}  // namespace tandem
