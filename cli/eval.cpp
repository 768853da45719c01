#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>

#include "cli/commands.h"
#include "cli/load_model.h"
#include "cli/output.h"
#include "cli/parse.h"
#include "cli/rank_process.h"
#include "eval/registry.h"

// `tandem eval`: every evaluation of eval/registry is a subcommand; its config's keys are its
// options.

namespace tandem {
namespace {

std::string flag_name(std::string key) {
  std::replace(key.begin(), key.end(), '_', '-');
  return "--" + key;
}

// The options as they would stand in a config file.
ConfigNode scalar_node(const EvalFlag& flag, const std::string& text) {
  ConfigNode node = ConfigNode::make_scalar(text, /*quoted=*/flag.kind.starts_with("TEXT"));
  node.origin = {"command line", 0};
  return node;
}

ConfigNode node_of(const EvalFlag& flag, const std::string& text) {
  if (!flag.is_list) return scalar_node(flag, text);
  ConfigNode list = ConfigNode::make_list();
  list.origin = {"command line", 0};
  std::stringstream words(text);
  for (std::string word; std::getline(words, word, ',');)
    list.items.push_back(scalar_node(flag, word));
  return list;
}

struct Common {
  EvalArgs args;
  LaunchFlags launch;
  std::string device = "auto", out;
  bool json = false;
};

void add_options(CLI::App& app, const Evaluation& evaluation, Common& common,
                 std::map<std::string, std::string>& given) {
  app.footer(evaluation.help);
  app.add_option("inputs", common.args.inputs, "Checkpoints or run folders")->required();
  for (const EvalFlag& flag : evaluation.flags)
    app.add_option(flag_name(flag.key), given[flag.key])->type_name(flag.kind);
  app.add_option("--batch", common.args.batch, "Rows of one call")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--seed", common.args.seed, "Of what is random")->capture_default_str();
  app.add_option("--device", common.device, "auto, cpu, cuda or cuda:N")->capture_default_str();
  app.add_option("--dtype", common.args.dtype, "float32, bfloat16 or float64")
      ->capture_default_str();
  app.add_option("--out", common.out,
                 "Append each result to this file as a line of JSON; those it holds already are "
                 "not computed again");
  app.add_flag("--json", common.json, "Print results as lines of JSON");
  add_launch_options(app, common.launch);
}

constexpr double kCellSeconds = 7 * 24 * 3600;

// What all ranks must be about to do.
std::string work_of(const Evaluation& evaluation, const ConfigNode& options, const EvalArgs& args) {
  std::string text = "eval " + evaluation.name + " " + args.dtype + " " + std::to_string(args.seed);
  for (const std::string& input : args.inputs) text += " " + input;
  return text + "\n" + to_yaml(options);
}

int run(const Evaluation& evaluation, Common& common, const CLI::App& app,
        const std::map<std::string, std::string>& given) {
  ConfigNode options = ConfigNode::make_map();
  options.origin = {"command line", 0};
  for (const EvalFlag& flag : evaluation.flags) {
    if (app.count(flag_name(flag.key)) > 0)
      options.entries.emplace_back(flag.key, node_of(flag, given.at(flag.key)));
  }
  EvalArgs& args = common.args;
  const Launch launch = find_launch(common.launch, process_environment);
  args.device = device_of_rank(common.device, launch);
  const torch::Dtype dtype = parse_dtype(args.dtype);
  args.load = [&](const std::string& path) { return load_model(path, args.device, dtype); };
  args.describe = describe_model;
  args.load_or_make = [&](const std::string& path) {
    return is_config(path) ? random_model(path, args.seed, args.device, dtype) : args.load(path);
  };
  RankProcess ranks(launch, {.data = launch.world}, CommunicationConfig(),
                    work_of(evaluation, options, args), args.device);
  // A rank waits for the others' cells, however long they take; who dies or hangs is noticed by
  // the watch over ranks.
  ranks.mesh().set_time_limit(kCellSeconds);
  return ranks.run([&] {
    CellRunner cells(common.out, ranks.mesh().control.get(), [&](const auto& record) {
      if (common.json) print(record.dump() + "\n");
    });
    args.cells = &cells;
    const EvalTable table = evaluation.run(options, args);
    if (!common.json && launch.rank == 0) print(format_table(table));
    return static_cast<int>(kExitDone);
  });
}

}  // namespace

int run_eval(int argc, const char* const* argv) {
  CLI::App app("Evaluate trained models", argv[0]);
  app.footer(
      "Example: tandem eval nll runs/yoco --data data/valid\n"
      "Several processes share the work: torchrun --no-python --nproc-per-node 8 tandem eval ...");
  app.require_subcommand(1);
  std::vector<Common> common(evaluations().size());
  std::vector<std::map<std::string, std::string>> given(evaluations().size());
  std::vector<CLI::App*> commands;
  for (size_t i = 0; i < evaluations().size(); ++i) {
    const Evaluation& evaluation = evaluations()[i];
    commands.push_back(app.add_subcommand(evaluation.name, evaluation.summary));
    add_options(*commands.back(), evaluation, common[i], given[i]);
  }
  if (const auto code = parse_arguments(app, argc, argv)) return *code;
  for (size_t i = 0; i < commands.size(); ++i) {
    if (commands[i]->parsed()) return run(evaluations()[i], common[i], *commands[i], given[i]);
  }
  return kExitUsage;
}

}  // namespace tandem
