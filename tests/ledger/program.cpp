#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <iterator>

#include "core/error.h"
#include "core/file.h"
#include "core/json_lines.h"
#include "core/log.h"
#include "tests/ledger/ledger.h"

namespace tandem {
namespace {

LedgerFault fault_of(const std::string& name) {
  return static_cast<LedgerFault>(
      std::find(std::begin(kLedgerFaults), std::end(kLedgerFaults), name) -
      std::begin(kLedgerFaults));
}

struct Arguments {
  LedgerOptions options;
  std::vector<std::string> configurations;
  std::string out, fault = kLedgerFaults[0];
  LedgerPlan plan;  // of a rank
  int64_t attempt = 0, rank = 0, world = 1;
};

CLI::App* add_run(CLI::App& app, Arguments& arguments) {
  CLI::App* run = app.add_subcommand("run", "Read, kill, go on, and check");
  std::vector<std::string> names;
  for (const auto& configuration : ledger_configurations()) names.push_back(configuration.name);
  run->add_option("--configuration", arguments.configurations, "Which; default: all")
      ->check(CLI::IsMember(names));
  LedgerOptions& options = arguments.options;
  run->add_option("--folder", options.folder, "Where to write; what is there is replaced")
      ->required();
  run->add_option("--epochs", options.epochs, "Of each source, at least")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  run->add_option("--kills", options.kills, "Of all ranks at once")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  run->add_option("--scale", options.scale, "Data so many times as large")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  run->add_option("--seed", options.seed, "Of all that is random")->capture_default_str();
  run->add_option("--break", arguments.fault, "What the ranks shall do wrong")
      ->check(CLI::IsMember(
          std::vector<std::string>(std::begin(kLedgerFaults), std::end(kLedgerFaults))));
  run->add_option("--out", arguments.out, "Also append the lines to this file");
  return run;
}

CLI::App* add_rank(CLI::App& app, Arguments& arguments) {
  CLI::App* rank = app.add_subcommand("rank", "One worker; started by run");
  rank->add_option("--configuration", arguments.configurations)->required();
  rank->add_option("--data", arguments.plan.data)->required();
  rank->add_option("--run", arguments.plan.run)->required();
  rank->add_option("--seed", arguments.plan.seed)->required();
  rank->add_option("--steps", arguments.plan.steps)->required();
  rank->add_option("--break", arguments.fault)->required();
  rank->add_option("--attempt", arguments.attempt)->required();
  rank->add_option("--rank", arguments.rank)->required();
  rank->add_option("--world", arguments.world)->required();
  return rank;
}

int run_all(Arguments& arguments) {
  arguments.options.fault = fault_of(arguments.fault);
  bool clean = true;
  for (const auto& configuration : ledger_configurations()) {
    const auto& wanted = arguments.configurations;
    if (!wanted.empty() && std::count(wanted.begin(), wanted.end(), configuration.name) == 0)
      continue;
    const LedgerReport report = run_ledger(configuration, arguments.options);
    const auto& violations = report.violations();
    clean = clean && violations.empty();
    constexpr size_t kPrinted = 20;
    for (size_t i = 0; i < std::min(kPrinted, violations.size()); ++i)
      std::fprintf(stderr, "VIOLATION: %s\n", violations[i].c_str());
    std::printf("%s\n", report.facts.dump().c_str());
    std::fflush(stdout);
    if (!arguments.out.empty()) JsonLinesWriter(arguments.out).write(report.facts);
  }
  return clean ? 0 : 1;
}

}  // namespace

LedgerReport run_ledger(const LedgerConfiguration& configuration, const LedgerOptions& options) {
  const auto begin = std::chrono::steady_clock::now();
  const std::string folder = join_path(options.folder, configuration.name);
  remove_tree(folder);
  const auto data = make_ledger_data(configuration, options.seed, options.scale);
  LedgerPlan whole = {.configuration = &configuration,
                      .data = join_path(folder, "data"),
                      .run = join_path(folder, "whole"),
                      .seed = options.seed};
  write_ledger_data(configuration, data, whole.data);
  whole.steps = ledger_steps(whole, options.epochs);
  LedgerPlan killed = whole;
  killed.run = join_path(folder, "killed");
  killed.fault = options.fault;

  LedgerReport report, undisturbed;
  drive_ledger(whole, 0, undisturbed);
  const auto attempts = drive_ledger(killed, options.kills, report);
  verify_ledger(killed, attempts, whole, data, report);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;

  nlohmann::ordered_json facts = {{"part", "ledger"},        {"configuration", configuration.name},
                                  {"seed", options.seed},    {"samples", killed.samples()},
                                  {"steps", killed.steps},   {"rows_per_step", configuration.rows},
                                  {"epochs", options.epochs}};
  facts.update(report.facts);
  facts["violations"] = report.violations().size();
  facts["seconds"] = std::round(seconds.count() * 10) / 10;
  report.facts = facts;
  return report;
}

int ledger_main(int argc, const char* const* argv) {
  CLI::App app("That every sample is read exactly once, under kills and in changing worlds",
               "ledger");
  app.require_subcommand(1);
  Arguments arguments;
  add_run(app, arguments);
  const CLI::App* rank = add_rank(app, arguments);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kExitDone : kExitUsage;
  }
  try {
    if (!rank->parsed()) return run_all(arguments);
    arguments.plan.configuration = &ledger_configuration(arguments.configurations.front());
    arguments.plan.fault = fault_of(arguments.fault);
    run_ledger_rank(arguments.plan, arguments.attempt, arguments.rank, arguments.world);
    return kExitDone;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "ledger: %s\n", error.what());
    return kExitInternal;
  }
}

}  // namespace tandem
