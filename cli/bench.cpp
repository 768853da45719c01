#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <optional>

#include "cli/bench_loader.h"
#include "cli/bench_record.h"
#include "cli/bench_tokenizer.h"
#include "cli/commands.h"
#include "cli/inference_table.h"
#include "cli/load_model.h"
#include "cli/output.h"
#include "cli/parse.h"
#include "core/error.h"
#include "core/file.h"
#include "core/json_lines.h"
#include "core/log.h"
#include "nn/peak_memory.h"

// `tandem bench inference`: how long a prompt takes, how long a token after it, and what both need
// of memory; and the way to the other benchmarks.

namespace tandem {
namespace {

using Json = nlohmann::ordered_json;

/// Where results go.
struct Sinks {
  explicit Sinks(const BenchOptions& o) : as_json(o.json) {
    if (!o.out.empty()) lines.emplace(o.out);
    if (!o.csv.empty()) csv.emplace(o.csv);
  }
  void add(const BenchCase& c, const Measured& measured, const BenchOptions& o,
           torch::Device device) {
    records.push_back(bench_record(c, measured, o, device));
    if (lines) lines->write(records.back());
    if (csv) csv->write(c, measured);
    if (as_json) print(records.back().dump() + "\n");
  }
  void add_out_of_memory(const std::string& model, const BenchLength& tokens, int64_t rows) {
    if (csv) csv->write_out_of_memory(model, tokens, rows);
  }
  bool as_json;
  std::optional<JsonLinesWriter> lines;
  std::optional<GenerationCsv> csv;
  std::vector<Json> records;
};

void bench_model(const std::string& path, const BenchOptions& o, torch::Device device,
                 Sinks& sinks) {
  const torch::Dtype dtype = parse_dtype(o.dtype);
  const LoadedModel loaded =
      is_config(path) ? random_model(path, o.seed, device, dtype) : load_model(path, device, dtype);
  LanguageModel& model = *loaded.model;
  const c10::InferenceMode inference;
  for (const BenchLength& tokens : bench_lengths(o, path, model)) {
    log_line(fmt::format("{}, {} tokens and {} after them", path, with_commas(tokens.prompt),
                         with_commas(tokens.generated)));
    int64_t rows = 1;  // at work: --protocol decode begins with one
    try {
      const Workload workload = o.protocol == "decode" ? decode_workload(model, tokens, o, device)
                                                       : whole_workload(model, tokens, o, device);
      for (const int64_t asked : o.batches) {
        BenchCase c{path, loaded, tokens, asked, asked};
        if (asked == 0) {
          const LargestBatch found = largest_batch(workload, path, model, tokens, o, device);
          c.batch = found.rows;
          for (const int64_t too_many : found.did_not_fit)
            sinks.add_out_of_memory(path, tokens, too_many);
        }
        rows = c.batch;
        log_line(fmt::format("  batch {}", with_commas(rows)));
        release_free_memory(device);
        sinks.add(c, measure(workload, rows, o), o, device);
      }
    } catch (const c10::Error& error) {
      if (!is_out_of_memory(error)) throw;
      sinks.add_out_of_memory(path, tokens, rows);
      throw bad_usage(fmt::format(
          "{} has no memory for {} rows of {} at {} tokens; ask for a smaller --batch or --memory",
          device.str(), with_commas(rows), path, with_commas(tokens.total())));
    }
  }
}

int run_inference(const CLI::App& command, BenchOptions& o) {
  const torch::Device device = parse_device(o.device);
  parse_dtype(o.dtype);
  settle_bench_options(command, device.is_cpu(), o);
  Sinks sinks(o);
  for (const std::string& path : o.models) bench_model(path, o, device, sinks);
  if (o.json) return kExitDone;
  const bool decode_only = o.protocol == "decode";
  print((decode_only ? decode_table : inference_table)(sinks.records));
  print(comparison_table(sinks.records, o.reference));
  if (decode_only || o.protocol == "block-transformer")
    print(cost_table(sinks.records, o.reference));
  return kExitDone;
}

}  // namespace

int run_bench(int argc, const char* const* argv) {
  CLI::App app("Measure whole workloads", argv[0]);
  app.footer("Example: tandem bench inference runs/yoco --lengths 512,2048");
  app.require_subcommand(1);
  CLI::App& inference =
      *app.add_subcommand("inference", "Time of a prompt, time of a token after it, and memory");
  BenchOptions options;
  add_bench_options(inference, options);
  const auto bench_tokenizer = add_tokenizer_bench(app);
  const auto bench_loader = add_loader_bench(app);
  if (const auto code = parse_arguments(app, argc, argv)) return *code;
  if (app.got_subcommand("tokenizer")) return bench_tokenizer();
  if (app.got_subcommand("loader")) return bench_loader();
  return run_inference(inference, options);
}

}  // namespace tandem
