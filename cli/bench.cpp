#include <fmt/format.h>
#include <torch/cuda.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/load_model.h"
#include "cli/output.h"
#include "cli/parse.h"
#include "core/file.h"
#include "core/json_lines.h"
#include "core/log.h"
#include "nn/generate.h"
#include "train/device_info.h"

// `tandem bench inference`: how long a prompt takes and how long a token after it. Prompts are
// random ids; prefill asks for the logits of the last token only, so that models with an early exit
// take it; decoding is greedy through generate_block.

namespace tandem {
namespace {

using Json = nlohmann::ordered_json;

struct Options {
  std::vector<std::string> models;
  std::vector<int64_t> prompt_lengths = {128, 512, 2048}, batches = {1, 4};
  int64_t decode = 64, repeats = 5, prefill_chunk = 0;
  uint64_t seed = 0;
  std::string device = "auto", dtype = "float32", out;
  bool json = false;
};

// Of repeated measurements, in milliseconds.
struct Times {
  std::vector<double> ms;
  double median() const {
    const size_t n = ms.size();
    return n % 2 == 1 ? ms[n / 2] : (ms[n / 2 - 1] + ms[n / 2]) / 2;
  }
  void sort() { std::sort(ms.begin(), ms.end()); }
  Json json() const { return {{"median", median()}, {"min", ms.front()}, {"max", ms.back()}}; }
  std::string text() const {
    return fmt::format("{:.2f} ({:.2f} – {:.2f})", median(), ms.front(), ms.back());
  }
};

struct Measured {
  Times prefill, decode;    // of the whole batch: one prompt each, one token each
  int64_t state_bytes = 0;  // after the prompt
};

template <typename Function>
double time_ms(torch::Device device, const Function& f) {
  const auto wait = [&] {
    if (device.is_cuda()) torch::cuda::synchronize(device.index());
  };
  wait();
  const auto begin = std::chrono::steady_clock::now();
  f();
  wait();
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin)
      .count();
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

Measured measure(LanguageModel& model, int64_t batch, int64_t length, const Options& o,
                 torch::Device device) {
  const c10::InferenceMode inference;
  const auto prompts = random_prompts(model.vocab_size(), batch, length, o.seed);
  const int64_t calls = std::max<int64_t>(1, o.decode / model.tokens_per_call());
  const auto n_tokens = static_cast<double>(calls * model.tokens_per_call());
  Measured measured;
  for (int64_t repeat = -1; repeat < o.repeats; ++repeat) {  // the first is the warm-up
    const auto state = inference_state(model, batch, length + calls * model.tokens_per_call());
    DeviceSampler greedy({.temperature = 0}, batch, device);
    const double prefill_ms =
        time_ms(device, [&] { prefill(model, prompts, o.prefill_chunk, *state); });
    measured.state_bytes = state->bytes();
    const double decode_ms = time_ms(device, [&] {
      for (int64_t call = 0; call < calls; ++call) model.generate_block(*state, greedy);
    });
    if (repeat < 0) continue;
    measured.prefill.ms.push_back(prefill_ms);
    measured.decode.ms.push_back(decode_ms / n_tokens);
  }
  measured.prefill.sort();
  measured.decode.sort();
  return measured;
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

struct Case {
  std::string name;
  const LoadedModel& loaded;
  int64_t batch, length;
};

Json record_of(const Case& c, const Measured& m, const Options& o, torch::Device device) {
  LanguageModel& model = *c.loaded.model;
  const auto element_size = static_cast<int64_t>(torch::elementSize(parse_dtype(o.dtype)));
  const Flops prefill_flops = model.flops(Phase::kPrefill, c.length, c.batch);
  const Flops decode_flops = model.flops(Phase::kDecode, c.length + o.decode / 2, c.batch);
  const auto batch = static_cast<double>(c.batch), tokens = batch * static_cast<double>(c.length);
  return {{"benchmark", "inference"},
          {"model", c.name},
          {"checkpoint", c.loaded.checkpoint},
          {"step", c.loaded.step},
          {"parameters", count_parameters(model)},
          {"device", device.str()},
          {"device_name", device_name(device)},
          {"threads", at::get_num_threads()},
          {"dtype", o.dtype},
          {"batch", c.batch},
          {"prompt_length", c.length},
          {"decode_length", o.decode},
          {"prefill_chunk", o.prefill_chunk},
          {"repeats", o.repeats},
          {"seed", o.seed},
          {"prefill_ms", m.prefill.json()},
          {"prefill_tokens_per_s", tokens / m.prefill.median() * 1e3},
          {"prefill_flops", by_part(prefill_flops)},
          {"prefill_gflops_per_s", prefill_flops.total() / m.prefill.median() / 1e6},
          {"decode_ms_per_token", m.decode.json()},
          {"decode_tokens_per_s", batch / m.decode.median() * 1e3},
          {"decode_flops_per_token", by_part(decode_flops)},
          {"decode_gflops_per_s", decode_flops.total() / m.decode.median() / 1e6},
          {"state_bytes", m.state_bytes},
          {"state_bytes_per_row", by_part(model.state_bytes(c.length, element_size))},
          {"memory_bytes", memory_use(device).bytes}};
}

std::vector<std::string> table_row(const Json& r, const Measured& m) {
  const auto whole = [](double value) { return with_commas(std::llround(value)); };
  return {r["model"],
          with_commas(r["batch"].get<int64_t>()),
          with_commas(r["prompt_length"].get<int64_t>()),
          m.prefill.text(),
          whole(r["prefill_tokens_per_s"]),
          m.decode.text(),
          whole(r["decode_tokens_per_s"]),
          human_bytes(static_cast<double>(m.state_bytes))};
}

int run_inference(const Options& o) {
  const torch::Device device = parse_device(o.device);
  const torch::Dtype dtype = parse_dtype(o.dtype);
  std::optional<JsonLinesWriter> out;
  if (!o.out.empty()) out.emplace(o.out);
  std::vector<std::vector<std::string>> table = {
      {"model", "batch", "prompt", "prefill ms (min – max)", "tokens/s",
       "decode ms/token (min – max)", "tokens/s", "state"}};
  for (const std::string& path : o.models) {
    const LoadedModel loaded = is_config(path) ? random_model(path, o.seed, device, dtype)
                                               : load_model(path, device, dtype);
    for (const int64_t batch : o.batches) {
      for (const int64_t length : o.prompt_lengths) {
        log_line(fmt::format("{}: batch {}, prompt {}", path, batch, length));
        const Measured measured = measure(*loaded.model, batch, length, o, device);
        const Json record = record_of({path, loaded, batch, length}, measured, o, device);
        if (out) out->write(record);
        if (o.json) print(record.dump() + "\n");
        table.push_back(table_row(record, measured));
      }
    }
  }
  if (!o.json) print(format_table(table));
  return kExitDone;
}

}  // namespace

int run_bench(int argc, const char* const* argv) {
  CLI::App app("Measure whole workloads", argv[0]);
  app.footer("Example: tandem bench inference runs/yoco --prompt-lengths 512,2048");
  app.require_subcommand(1);
  Options o;
  CLI::App& inference = *app.add_subcommand(
      "inference", "Time of a prompt, time of a token after it, and memory of the state");
  inference.footer(
      "Example: tandem bench inference runs/yoco configs/transformer.yaml --prompt-lengths "
      "512,2048 --batch 1,8 --out bench.jsonl");
  inference
      .add_option("models", o.models,
                  "Checkpoints, run folders, or configs (.yaml: random weights)")
      ->required();
  inference.add_option("--prompt-lengths", o.prompt_lengths, "Tokens, separated by commas")
      ->delimiter(',')
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  inference.add_option("--batch", o.batches, "Rows, separated by commas")
      ->delimiter(',')
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  inference.add_option("--decode", o.decode, "Tokens generated after each prompt")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  inference.add_option("--repeats", o.repeats, "Measurements after one warm-up")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  inference
      .add_option("--prefill-chunk", o.prefill_chunk, "Prompt tokens of one call; 0 = all at once")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  inference.add_option("--seed", o.seed, "Of the prompts and of random weights")
      ->capture_default_str();
  inference.add_option("--device", o.device, "auto, cpu, cuda or cuda:N")->capture_default_str();
  inference.add_option("--dtype", o.dtype, "float32, bfloat16 or float64")->capture_default_str();
  inference.add_option("--out", o.out, "Append each result to this file as a line of JSON");
  inference.add_flag("--json", o.json, "Print results as lines of JSON");
  if (const auto code = parse_arguments(app, argc, argv)) return *code;
  return run_inference(o);
}

}  // namespace tandem
