#include <fmt/format.h>
#include <torch/cuda.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/inference_table.h"
#include "cli/load_model.h"
#include "cli/output.h"
#include "cli/parse.h"
#include "cli/peak_memory.h"
#include "core/error.h"
#include "core/file.h"
#include "core/json_lines.h"
#include "core/log.h"
#include "nn/generate.h"
#include "train/device_info.h"

// `tandem bench inference`: how long a prompt takes, how long a token after it, and what both need
// of memory. Prompts are random ids; prefill asks for the logits of the last token only, so that
// models with an early exit take it; decoding is greedy through generate_block.

namespace tandem {
namespace {

using Json = nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

// A first run whose prompt takes as long as this counts: what a warm-up is for is nothing beside
// it.
constexpr double kLongPrefillMs = 20e3;
// Runs as long as this are reported as they end.
constexpr double kLongRunSeconds = 5;

struct Options {
  std::vector<std::string> models;
  std::string reference;  // empty: the last model
  std::string protocol = "prompt";
  std::vector<int64_t> lengths = {128, 512, 2048}, batches = {1, 4};
  int64_t decode = 64, repeats = 5, prefill_chunk = 0;
  double max_seconds = 0;  // 0: no limit
  uint64_t seed = 0;
  std::string device = "auto", dtype = "float32", cache_dtype = "same", out;
  bool json = false;
};

/// One model, batch and length.
struct Case {
  std::string name;
  const LoadedModel& loaded;
  int64_t batch, length;      // length: as in --lengths
  int64_t prompt, generated;  // tokens of a row
};

/// One prompt and what is generated after it, in all rows of the batch.
struct Run {
  double prefill_ms = 0, decode_ms = 0;
  int64_t state_bytes = 0;                                // after the prompt
  int64_t before_bytes = 0;                               // in use before, the model included
  std::optional<int64_t> prefill_peak_bytes, peak_bytes;  // beyond before_bytes
  std::optional<int64_t> prefill_beyond_state_bytes;  // the peak less state_bytes, so with spare room
  double seconds() const { return (prefill_ms + decode_ms) / 1e3; }
};

/// The runs that count.
struct Measured {
  std::vector<Run> runs;
  bool warm_up = true;  // there was one before them
};

template <typename Function>
double time_ms(torch::Device device, const Function& f) {
  const auto wait = [&] {
    if (device.is_cuda()) torch::cuda::synchronize(device.index());
  };
  wait();
  const auto begin = Clock::now();
  f();
  wait();
  return std::chrono::duration<double, std::milli>(Clock::now() - begin).count();
}

std::vector<std::vector<int64_t>> random_prompts(int64_t vocab_size, int64_t batch, int64_t length,
                                                 uint64_t seed) {
  const RandomStream stream = RandomStream(seed).fork("bench prompts");
  std::vector<std::vector<int64_t>> prompts(static_cast<size_t>(batch));
  for (size_t b = 0; b < prompts.size(); ++b) {
    for (int64_t t = 0; t < length; ++t) {
      prompts[b].push_back(static_cast<int64_t>(
          stream.fork(b).below(static_cast<uint64_t>(t), static_cast<uint64_t>(vocab_size))));
    }
  }
  return prompts;
}

Run run_once(const Case& c, const std::vector<std::vector<int64_t>>& prompts, const Options& o,
             torch::Device device) {
  LanguageModel& model = *c.loaded.model;
  Run run;
  const PeakMemory peak(device);
  run.before_bytes = peak.before_bytes();
  const auto state =
      inference_state(model, c.batch, c.prompt + c.generated, cache_dtype_of(o.cache_dtype));
  DeviceSampler greedy({.temperature = 0}, c.batch, device);
  run.prefill_ms = time_ms(device, [&] { prefill(model, prompts, o.prefill_chunk, *state); });
  run.state_bytes = state->bytes();
  run.prefill_peak_bytes = peak.growth_bytes();
  run.decode_ms = time_ms(device, [&] {
    for (int64_t done = 0; done < c.generated; done += model.tokens_per_call())
      model.generate_block(*state, greedy);
  });
  run.peak_bytes = peak.growth_bytes();
  if (run.prefill_peak_bytes)  // the state was made with room for what is full only now
    run.prefill_beyond_state_bytes = std::max<int64_t>(0, *run.prefill_peak_bytes - state->bytes());
  return run;
}

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

Measured measure(const Case& c, const Options& o, torch::Device device) {
  const c10::InferenceMode inference;
  const auto prompts = random_prompts(c.loaded.model->vocab_size(), c.batch, c.prompt, o.seed);
  const auto begin = Clock::now();
  Run run = run_once(c, prompts, o, device);
  const auto time_is_up = [&] {
    return o.max_seconds > 0 && seconds_since(begin) + run.seconds() > o.max_seconds;
  };
  Measured measured;
  measured.warm_up = run.prefill_ms < kLongPrefillMs && !time_is_up();
  if (!measured.warm_up) measured.runs.push_back(run);
  const auto n_left = [&] { return o.repeats - static_cast<int64_t>(measured.runs.size()); };
  while (n_left() > 0 && (measured.runs.empty() || !time_is_up())) {
    if (run.seconds() > kLongRunSeconds) {
      log_line(fmt::format("  prefill {:.1f} s, decoding {:.1f} s; up to {} more, {}",
                           run.prefill_ms / 1e3, run.decode_ms / 1e3, n_left(),
                           human_duration(static_cast<double>(n_left()) * run.seconds())));
    }
    run = run_once(c, prompts, o, device);
    measured.runs.push_back(run);
  }
  return measured;
}

/// Median, smallest and largest over the runs.
Json spread_of(const Measured& m, const auto& value_of) {
  std::vector<double> values;
  for (const Run& run : m.runs) values.push_back(value_of(run));
  std::sort(values.begin(), values.end());
  const size_t n = values.size();
  const double median = n % 2 == 1 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
  return {{"median", median}, {"min", values.front()}, {"max", values.back()}};
}

/// The largest of the runs; null where the system did not tell.
Json largest_of(const Measured& m, std::optional<int64_t> Run::*bytes) {
  std::optional<int64_t> largest;
  for (const Run& run : m.runs) largest = std::max(largest, run.*bytes);
  return largest ? Json(*largest) : Json();
}

Json by_part(const auto& cost) {
  Json json;
  for (const auto& [part, value] : cost.parts) json[part] = value;
  json["total"] = cost.total();
  return json;
}

bool is_config(const std::string& path) {
  return (path.ends_with(".yaml") || path.ends_with(".yml")) && !is_directory(path);
}

std::string family_of(const LoadedModel& loaded) {
  const ConfigNode* model = loaded.config.find("model");
  const ConfigNode* family = model ? model->find("family") : nullptr;
  return family ? family->scalar : "";
}

Json record_of(const Case& c, const Measured& m, const Options& o, torch::Device device) {
  LanguageModel& model = *c.loaded.model;
  const auto element_size = static_cast<int64_t>(
      torch::elementSize(cache_dtype_of(o.cache_dtype).value_or(parse_dtype(o.dtype))));
  const auto batch = static_cast<double>(c.batch), prompt = static_cast<double>(c.prompt),
             generated = static_cast<double>(c.generated);
  const Flops prefill_flops = model.flops(Phase::kPrefill, c.prompt, c.batch);
  const Flops decode_flops = model.flops(Phase::kDecode, c.prompt + c.generated / 2, c.batch);
  const Json prefill_ms = spread_of(m, [](const Run& run) { return run.prefill_ms; });
  const Json decode_ms = spread_of(m, [&](const Run& run) { return run.decode_ms / generated; });
  const Json throughput =
      spread_of(m, [&](const Run& run) { return batch * generated / run.seconds(); });
  const double median_prefill = prefill_ms["median"], median_decode = decode_ms["median"];
  return {{"benchmark", "inference"},
          {"model", c.name},
          {"family", family_of(c.loaded)},
          {"checkpoint", c.loaded.checkpoint},
          {"step", c.loaded.step},
          {"parameters", count_parameters(model)},
          {"layers", model.n_layers()},
          {"device", device.str()},
          {"device_name", device_name(device)},
          {"threads", at::get_num_threads()},
          {"dtype", o.dtype},
          {"cache_dtype", o.cache_dtype == "same" ? o.dtype : o.cache_dtype},
          {"protocol", o.protocol},
          {"batch", c.batch},
          {"length", c.length},
          {"prompt_length", c.prompt},
          {"decode_length", c.generated},
          {"prefill_chunk", o.prefill_chunk},
          {"repeats", m.runs.size()},
          {"warm_up", m.warm_up},
          {"seed", o.seed},
          {"prefill_ms", prefill_ms},
          {"prefill_tokens_per_s", batch * prompt / median_prefill * 1e3},
          {"prefill_flops", by_part(prefill_flops)},
          {"prefill_gflops_per_s", prefill_flops.total() / median_prefill / 1e6},
          {"decode_ms_per_token", decode_ms},
          {"decode_tokens_per_s", batch / median_decode * 1e3},
          {"decode_flops_per_token", by_part(decode_flops)},
          {"decode_gflops_per_s", decode_flops.total() / median_decode / 1e6},
          {"throughput_tokens_per_s", throughput},  // generated tokens over all of the time
          {"state_bytes", m.runs.back().state_bytes},
          {"state_bytes_per_row", by_part(model.state_bytes(c.prompt, element_size))},
          {"before_bytes", m.runs.back().before_bytes},
          {"prefill_peak_bytes", largest_of(m, &Run::prefill_peak_bytes)},
          {"prefill_beyond_state_bytes", largest_of(m, &Run::prefill_beyond_state_bytes)},
          {"peak_bytes", largest_of(m, &Run::peak_bytes)}};
}

Case make_case(const std::string& name, const LoadedModel& loaded, int64_t batch, int64_t length,
               const Options& o) {
  const int64_t per_call = loaded.model->tokens_per_call();
  const int64_t generated = std::max<int64_t>(1, o.decode / per_call) * per_call;
  const int64_t prompt = o.protocol == "yoco" ? length - generated : length;
  if (prompt < 1) {
    throw bad_usage(
        fmt::format("--lengths {} leaves no prompt, expected more than the {} tokens "
                    "that are generated",
                    length, generated));
  }
  return {name, loaded, batch, length, prompt, generated};
}

/// Of o.models.
std::string reference_of(const Options& o) {
  if (o.reference.empty()) return o.models.back();
  if (std::find(o.models.begin(), o.models.end(), o.reference) == o.models.end())
    throw bad_usage("--reference " + o.reference + " is none of the models");
  return o.reference;
}

int run_inference(const Options& o) {
  const torch::Device device = parse_device(o.device);
  const torch::Dtype dtype = parse_dtype(o.dtype);
  const std::string reference = reference_of(o);
  std::optional<JsonLinesWriter> out;
  if (!o.out.empty()) out.emplace(o.out);
  const size_t n_cases = o.models.size() * o.batches.size() * o.lengths.size();
  std::vector<Json> records;
  for (const std::string& path : o.models) {
    const LoadedModel loaded = is_config(path) ? random_model(path, o.seed, device, dtype)
                                               : load_model(path, device, dtype);
    for (const int64_t batch : o.batches) {
      for (const int64_t length : o.lengths) {
        const Case c = make_case(path, loaded, batch, length, o);
        log_line(fmt::format("{} of {}: {}, batch {}, {} tokens", records.size() + 1, n_cases, path,
                             batch, with_commas(length)));
        records.push_back(record_of(c, measure(c, o, device), o, device));
        if (out) out->write(records.back());
        if (o.json) print(records.back().dump() + "\n");
      }
    }
  }
  if (!o.json) print(inference_table(records) + comparison_table(records, reference));
  return kExitDone;
}

}  // namespace

int run_bench(int argc, const char* const* argv) {
  CLI::App app("Measure whole workloads", argv[0]);
  app.footer("Example: tandem bench inference runs/yoco --lengths 512,2048");
  app.require_subcommand(1);
  Options o;
  CLI::App& inference =
      *app.add_subcommand("inference", "Time of a prompt, time of a token after it, and memory");
  inference.footer(
      "Example: tandem bench inference runs/yoco configs/transformer.yaml --lengths 512,2048 "
      "--batch 1,8 --out bench.jsonl");
  inference
      .add_option("models", o.models,
                  "Checkpoints, run folders, or configs (.yaml: random weights)")
      ->required();
  inference.add_option("--reference", o.reference,
                       "The model that the others are compared with; else the last");
  inference
      .add_option("--protocol", o.protocol,
                  "What a length is: prompt, or yoco: the paper's, prompt and generated tokens")
      ->check(CLI::IsMember({"prompt", "yoco"}))
      ->capture_default_str();
  inference
      .add_option("--lengths,--prompt-lengths", o.lengths, "Tokens of a row, separated by commas")
      ->delimiter(',')
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  inference.add_option("--batch", o.batches, "Rows, separated by commas")
      ->delimiter(',')
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  inference.add_option("--decode", o.decode, "Tokens generated after each prompt; the paper: 1024")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  inference.add_option("--repeats", o.repeats, "Measurements after one warm-up")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  inference
      .add_option("--max-seconds", o.max_seconds,
                  "Of a case: no repeat that would go past it, but at least one; 0 = no limit")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  inference
      .add_option("--prefill-chunk", o.prefill_chunk, "Prompt tokens of one call; 0 = all at once")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  inference.add_option("--seed", o.seed, "Of the prompts and of random weights")
      ->capture_default_str();
  inference.add_option("--device", o.device, "auto, cpu, cuda or cuda:N")->capture_default_str();
  inference.add_option("--dtype", o.dtype, "float32, bfloat16 or float64")->capture_default_str();
  inference
      .add_option("--cache-dtype", o.cache_dtype,
                  "Of keys and values in the state: same (as --dtype), float32 or bfloat16")
      ->check(CLI::IsMember(kCacheDtypes))
      ->capture_default_str();
  inference.add_option("--out", o.out, "Append each result to this file as a line of JSON");
  inference.add_flag("--json", o.json, "Print results as lines of JSON");
  if (const auto code = parse_arguments(app, argc, argv)) return *code;
  return run_inference(o);
}

}  // namespace tandem
