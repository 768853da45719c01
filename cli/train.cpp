#include <CLI/CLI.hpp>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cli/build_model.h"
#include "cli/commands.h"
#include "cli/mesh_report.h"
#include "cli/parse.h"
#include "cli/rank_process.h"
#include "core/config_node.h"
#include "core/file.h"
#include "core/log.h"
#include "train/dry_run.h"
#include "train/trainer.h"

namespace tandem {
namespace {

using Json = nlohmann::ordered_json;

/// configs/yoco_160m.yaml -> runs/yoco_160m.
std::string default_run_folder(const std::string& config_path) {
  const std::string name = config_path.substr(config_path.rfind('/') + 1);
  return join_path("runs", name.substr(0, name.rfind('.')));
}

std::string joined(int argc, const char* const* argv) {
  std::string line;
  for (int i = 0; i < argc; ++i) line += (line.empty() ? "" : " ") + std::string(argv[i]);
  return line;
}

TrainConfig read(const std::string& path, const std::vector<std::string>& words,
                 const ModelFactory& factory) {
  ConfigNode root = parse_yaml_file(path);
  for (const auto& word : override_words(words)) apply_override(root, word);
  TrainConfig config = make_train_config(factory);
  read_config(root, config);
  return config;
}

void print_row(const char* name, const std::string& value) {
  std::printf("%-26s %s\n", name, value.c_str());
}

std::string number(double value, const char* unit = "") {
  char text[48];
  std::snprintf(text, sizeof text, "%.4g%s", value, unit);
  return text;
}

void print_dry_run(const DryRun& run, bool as_json) {
  if (as_json) {
    Json json = {{"parameters", run.parameters}};
    for (const auto& [part, flops] : run.flops_per_token.parts)
      json["flops_per_token"][part] = flops;
    json["flops_per_token"]["total"] = run.flops_per_token.total();
    json["loss"] = run.loss;
    json["micro_batch_seconds"] = run.micro_batch_seconds;
    json["tokens_per_second"] = run.tokens_per_second;
    json["run_seconds"] = run.run_seconds;
    json["weights_bytes"] = run.weights_bytes;
    json["memory_bytes"] = run.memory.bytes;
    std::printf("%s\n", json.dump().c_str());
    return;
  }
  print_row("parameters", with_commas(run.parameters));
  for (const auto& [part, flops] : run.flops_per_token.parts)
    print_row(("FLOPs/token " + part).c_str(), number(flops));
  print_row("FLOPs/token in all", number(run.flops_per_token.total()));
  print_row("loss of a micro-batch", number(run.loss));
  print_row("micro-batch", number(run.micro_batch_seconds, " s"));
  print_row("tokens per second", with_commas(static_cast<long long>(run.tokens_per_second)));
  print_row("the whole run",
            human_duration(run.run_seconds) + " without validation and checkpoints");
  print_row("weights and optimizer", human_bytes(run.weights_bytes));
  print_row("memory after the passes",
            human_bytes(run.memory.bytes) + " of " + human_bytes(run.memory.limit));
}

void print_outcome(const TrainOutcome& outcome, const std::string& run_folder) {
  Json json = {{"run", run_folder}, {"step", outcome.step}, {"exit_code", outcome.exit_code}};
  if (outcome.loss) json["loss"] = *outcome.loss;
  if (outcome.validation_loss) json["validation_loss"] = *outcome.validation_loss;
  json["checkpoint"] = outcome.checkpoint.empty() ? Json() : Json(outcome.checkpoint);
  std::printf("%s\n", json.dump().c_str());
}

}  // namespace

int run_train(int argc, const char* const* argv) {
  CLI::App app(
      "Train a model, or go on where a run of the same folder stopped; key=value words override "
      "any key of the config",
      "tandem train");
  app.footer(
      "Example: tandem train configs/yoco_160m.yaml training.steps=1000 --out runs/first\n"
      "Several processes: torchrun --no-python --nproc-per-node 8 tandem train ..., srun tandem "
      "train ..., mpirun tandem train ...");
  app.allow_extras();
  std::string path, device = "auto";
  TrainOptions options;
  LaunchFlags flags;
  bool dry = false, json = false;
  app.add_option("CONFIG", path, "A training config")->required();
  app.add_option("--out", options.run_folder, "Run folder; default: runs/NAME for .../NAME.yaml");
  app.add_option("--device", device, "auto, cpu, cuda, cuda:N")->capture_default_str();
  app.add_option("--stop-at", options.stop_at,
                 "Save and leave after this step; the same command without it goes on")
      ->check(CLI::PositiveNumber);
  app.add_flag(
      "--dry-run", dry,
      "Set up all ranks, one micro-batch forward and backward, estimates, nothing written");
  add_launch_options(app, flags);
  app.add_flag("--json", json, "Print the result as JSON");
  if (const auto code = parse_arguments(app, argc, argv)) return *code;

  const ModelFactory factory = model_factory();
  TrainConfig config = read(path, app.remaining(), factory);
  const Launch launch = find_launch(flags, process_environment);
  options.device = device_of_rank(device, launch);
  options.ranks_of_machine = launch.local_world;
  options.command = joined(argc, argv);
  if (options.run_folder.empty()) options.run_folder = default_run_folder(path);
  RankProcess ranks(launch, mesh_of(config, launch.world), config.communication,
                    to_yaml(write_config(config)), options.device);
  options.mesh = &ranks.mesh();
  options.report = [&ranks](int64_t step, const char* what) { ranks.report(step, what); };
  return ranks.run([&] {
    if (dry) {
      const DryRun run = dry_run(config, factory, ranks.mesh(), options.device);
      if (launch.rank == 0) print_dry_run(run, json);
      return static_cast<int>(kExitDone);
    }
    const TrainOutcome outcome = train(std::move(config), factory, options);
    if (json && launch.rank == 0) print_outcome(outcome, options.run_folder);
    return outcome.exit_code;
  });
}

}  // namespace tandem
