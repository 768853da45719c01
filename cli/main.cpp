#include <c10/util/Exception.h>
#include <torch/version.h>

#include <csignal>
#include <cstdio>
#include <string>
#include <vector>

#include "cli/commands.h"
#include "cli/output.h"
#include "core/error.h"
#include "core/version.h"

// `tandem COMMAND ...`: the table of subcommands, and the one place that turns exceptions into
// messages and exit codes.

namespace tandem {
namespace {

struct Command {
  std::string name, summary;
  int (*run)(int argc, const char* const* argv);
};

const std::vector<Command>& commands() {
  static const std::vector<Command> kTable = {
      {"train", "Train a model from a config; resumes by itself", run_train},
      {"sweep", "Train many models: a base config, a grid or list, and rules", run_sweep},
      {"data", "Learn a tokenizer, turn text into token files, look into them", run_data},
      {"eval", "Evaluate trained models", run_eval},
      {"generate", "Continue a text, streaming", run_generate},
      {"score", "Log-probabilities of given token ids, as JSON", run_score},
      {"bench", "Measure prefill, decoding, memory, tokenizers and the loader", run_bench},
      {"convert", "Import and export other programs' checkpoints", run_convert},
      {"config", "Show or check a config: parameters, FLOPs, memory", run_config},
  };
  return kTable;
}

std::string help() {
  std::string text =
      "Tandem trains, evaluates and runs fast language models.\n\nUsage: tandem COMMAND "
      "[OPTIONS]\n\nCommands:\n";
  for (const Command& command : commands())
    text +=
        "  " + command.name + std::string(10 - command.name.size(), ' ') + command.summary + "\n";
  return text +
         "\n`tandem COMMAND --help` lists a command's options. `tandem --version` prints "
         "versions.\n"
         "Example: tandem generate runs/yoco --prompt \"In the beginning\"\n";
}

int run_command(const std::string& name, int argc, const char* const* argv) {
  std::vector<std::string> names;
  for (const Command& command : commands()) {
    names.push_back(command.name);
    if (command.name != name) continue;
    const std::string full_name = "tandem " + name;
    std::vector<const char*> words(argv + 1, argv + argc);
    words.front() = full_name.c_str();
    return command.run(argc - 1, words.data());
  }
  const std::string near = nearest(name, names);
  throw bad_usage("unknown command " + name + (near.empty() ? "" : "; did you mean " + near + "?") +
                  "; see tandem --help");
}

int run(int argc, const char* const* argv) {
  const std::string first = argc > 1 ? argv[1] : "--help";
  if (first == "--help" || first == "-h" || first == "help") {
    print(help());
    return argc > 1 ? kExitDone : kExitUsage;
  }
  if (first == "--version") {
    print(std::string("tandem ") + kTandemVersion + ", LibTorch " + TORCH_VERSION + "\n");
    return kExitDone;
  }
  const int code = run_command(first, argc, argv);
  print("");  // what is left in the buffer, and whether it arrived
  return code;
}

int complain(const std::string& message, int code) {
  std::fprintf(stderr, "tandem: %s\n", message.c_str());
  return code;
}

}  // namespace
}  // namespace tandem

int main(int argc, char** argv) {
  using namespace tandem;
  std::signal(SIGPIPE, SIG_IGN);  // a closed pipe is then an error of the write, see cli/output.h
  try {
    return run(argc, argv);
  } catch (const ReaderLeft&) {
    return kExitDone;
  } catch (const UserError& error) {
    return complain(error.what(), error.exit_code());
  } catch (const c10::Error& error) {
    return complain(std::string("internal error: ") + error.what_without_backtrace(),
                    kExitInternal);
  } catch (const std::exception& error) {
    return complain(std::string("internal error: ") + error.what(), kExitInternal);
  }
}
