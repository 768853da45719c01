#include <memory>

#include "cli/data_commands.h"
#include "core/error.h"
#include "core/file.h"
#include "core/log.h"
#include "core/progress.h"
#include "data/tokenizer.h"
#include "data/token_file_writer.h"
#include "eval/retrieval_samples.h"

// `tandem data retrieval`: a token file of training samples for retrieval, with PREFIX.weights.

namespace tandem {
namespace {

struct Retrieval {
  std::string tokenizer, input, output;
  RetrievalConfig config;
  int64_t samples = 8192;
  bool json = false;

  void add_to(CLI::App& command) {
    command.footer(
        "Every sample is one document of exactly --length tokens: train on it with "
        "context_length = --length and target_weights: true.\n"
        "Example: tandem data retrieval --tokenizer t.model --input text.txt --length 256 --pairs "
        "0.2 --dense 0.3 --needle 0.5 --output stage4");
    command.add_option("--tokenizer", tokenizer, "As data.tokenizer of a config")->required();
    command.add_option("--input", input, "Text that stands between needles")->required();
    command.add_option("--output", output, "PREFIX of the token file")->required();
    command.add_option("--length", config.length, "Tokens of a sample")->capture_default_str();
    command.add_option("--samples", samples, "How many")
        ->capture_default_str()
        ->check(CLI::PositiveNumber);
    command.add_option("--pairs", config.pairs, "Share of bare pairs of key and number")
        ->capture_default_str();
    command.add_option("--dense", config.dense, "Share of needles with little text between")
        ->capture_default_str();
    command.add_option("--needle", config.needle, "Share of whole needle tests")
        ->capture_default_str();
    command
        .add_option("--other-weight", config.other_weight,
                    "Weight in the loss of all tokens but answers, which weigh 1")
        ->capture_default_str()
        ->check(CLI::Range(0.0, 1.0));
    command.add_option("--word-keys", config.word_keys, "Share of keys that are words of the text")
        ->capture_default_str()
        ->check(CLI::Range(0.0, 1.0));
    command.add_option("--seed", config.seed, "Of all that is random")->capture_default_str();
    command.add_flag("--json", json, "Print the result as JSON");
  }

  int run() {
    const auto loaded = load_tokenizer(tokenizer);
    const RetrievalSamples supply(config, *loaded, read_text(input));
    const std::string weights = output + ".weights", partial = weights + ".partial";
    TokenFileWriter writer(output, loaded->vocab_size());
    File weights_file = File::create(partial);
    Progress progress("samples", samples, "samples");
    double answers = 0;
    for (int64_t k = 0; k < samples; ++k) {
      const RetrievalSamples::Sample sample = supply(k);
      writer.add_document(sample.ids);
      weights_file.write(std::as_bytes(std::span(sample.weights)));
      for (const float weight : sample.weights) answers += weight == 1;
      progress.update(k + 1);
    }
    progress.finish();
    writer.finish();
    weights_file.sync();
    rename_file(partial, weights);
    writer.publish();
    const auto tokens = static_cast<double>(writer.tokens());
    print_result({{"output", output},
                  {"samples", samples},
                  {"tokens", writer.tokens()},
                  {"share_of_answers", answers / tokens}},
                 json);
    return kExitDone;
  }
};

}  // namespace

DataCommand add_retrieval(CLI::App& app) {
  const auto command = std::make_shared<Retrieval>();
  command->add_to(*app.add_subcommand(
      "retrieval", "Write samples from which a small model learns to find needles"));
  return [command] { return command->run(); };
}

}  // namespace tandem
