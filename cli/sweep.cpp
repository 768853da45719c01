#include "train/sweep.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cli/build_model.h"
#include "cli/commands.h"
#include "cli/output.h"
#include "cli/parse.h"
#include "core/child_process.h"
#include "core/config_node.h"
#include "core/log.h"
#include "train/sweep_record.h"

// `tandem sweep`: many runs out of one file.

namespace tandem {
namespace {

using Json = nlohmann::ordered_json;
using Table = std::vector<std::vector<std::string>>;

std::string commas(const Json& value) { return with_commas(value.get<long long>()); }
std::string scientific(double value) { return fmt::format("{:.3g}", value); }

std::string loss_text(const Json& value) {
  return value.is_null() ? "n/a" : fmt::format("{:.4f}", value.get<double>());
}

/// The heads and feed-forward widths that the settings hold, in their order: "4/2".
std::string joined_values(const SweepRun& run, const std::string& key) {
  std::string text;
  for (const Setting& setting : run.settings) {
    if (setting.key.ends_with("." + key)) text += (text.empty() ? "" : "/") + setting.value.scalar;
  }
  return text.empty() ? "-" : text;
}

void print_plan(const SweepPlan& plan, bool as_json) {
  Table table = {{"run", "group", "d_model", "heads", "ffn_dim", "lr", "parameters",
                  "non-embedding", "FLOPs/token", "steps", "tokens", "FLOPs"}};
  int64_t tokens = 0;
  for (const SweepRun& run : plan.runs) {
    if (as_json) {
      print(describe(plan, run).dump() + "\n");
      continue;
    }
    tokens += run.tokens;
    table.push_back({run.name, run.group, std::to_string(run.d_model),
                     joined_values(run, "n_heads"), joined_values(run, "ffn_dim"),
                     scientific(run.lr), with_commas(run.parameters.total),
                     with_commas(run.parameters.non_embedding), scientific(run.flops_per_token),
                     with_commas(run.steps), with_commas(run.tokens), scientific(run.compute)});
  }
  if (as_json) return;
  print(format_table(table));
  print(fmt::format("{} runs into {}: {} tokens, {} FLOPs in all\n", plan.runs.size(), plan.folder,
                    with_commas(tokens), scientific(plan.compute())));
}

void print_outcome(const SweepPlan& plan, const SweepOutcome& outcome, bool as_json) {
  Table table = {{"run", "group", "non-embedding", "tokens", "FLOPs", "train loss",
                  "validation loss", "seconds", "tokens/s"}};
  for (const Json& record : outcome.records) {
    if (as_json) {
      print(record.dump() + "\n");
      continue;
    }
    const Json& rate = record["tokens_per_second"];
    table.push_back({record["run"], record["group"], commas(record["non_embedding_parameters"]),
                     commas(record["tokens"]), scientific(record["compute"].get<double>()),
                     loss_text(record["train_loss"]), loss_text(record["validation_loss"]),
                     fmt::format("{:.1f}", record["seconds"].get<double>()),
                     rate.is_null() ? "n/a" : with_commas(std::llround(rate.get<double>()))});
  }
  if (!as_json) {
    print(format_table(table));
    print(fmt::format("{} of {} runs are in {}/sweep.jsonl\n", outcome.records.size(),
                      plan.runs.size(), plan.folder));
  }
  for (const FailedRun& run : outcome.failed)
    log_line(
        fmt::format("failed: {}: exit code {}, {}: {}", run.name, run.code, run.log, run.reason));
}

}  // namespace

int run_sweep(int argc, const char* const* argv) {
  CLI::App app(
      "Train many models: a base config with a list of runs, a grid, or both. The same command "
      "goes on "
      "where it was stopped; key=value words override any key of the sweep",
      "tandem sweep");
  app.footer(
      "Example: tandem sweep configs/sweeps/yoco_sizes_tiny.yaml --dry-run\n"
      "Exit code 3: runs failed; they are listed at the end, and the same command tries them "
      "again");
  app.allow_extras();
  std::string path, device;
  std::string out;
  bool dry = false, json = false;
  app.add_option("SWEEP", path, "A sweep: base, set, grid, runs, rules, launcher, out")->required();
  app.add_option("--out", out,
                 "Folder of the runs; default: the file's, or runs/sweeps/NAME for .../NAME.yaml");
  app.add_option("--device", device, "What each run is given as its --device");
  app.add_flag("--dry-run", dry, "Print what each run is and costs; nothing is trained or written");
  app.add_flag("--json", json, "Print results as lines of JSON");
  if (const auto code = parse_arguments(app, argc, argv)) return *code;

  ConfigNode root = parse_yaml_file(path);
  for (const auto& word : override_words(app.remaining())) apply_override(root, word);
  SweepPlan plan = plan_sweep(root, path, model_factory());
  if (!out.empty()) plan.folder = out;
  if (dry) {
    print_plan(plan, json);
    return kExitDone;
  }
  SweepOptions options;
  options.program = own_program();
  if (!device.empty()) options.arguments = {"--device", device};
  const SweepOutcome outcome = sweep(plan, options);
  print_outcome(plan, outcome, json);
  return outcome.exit_code;
}

}  // namespace tandem
