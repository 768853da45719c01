#include "cli/bench_options.h"

#include <algorithm>

#include "core/error.h"
#include "nn/generate.h"

namespace tandem {
namespace {

constexpr int64_t kStateMemory = int64_t{4} << 30;  // on a CPU, whose memory is not found by trying

struct Protocol {
  const char* name;
  std::vector<int64_t> lengths, batches;
  std::vector<std::string> cases;
  int64_t decode;
};

const std::vector<Protocol>& protocols() {
  static const std::vector<Protocol> table = {
      {"prompt", {128, 512, 2048}, {1, 4}, {}, 64},
      {"yoco", {128, 512, 2048}, {1, 4}, {}, 64},
      {"block-transformer", {}, {0}, {"2048+128", "128+2048", "8192+128"}, 0},
      {"decode", {512, 2048, 8192}, {1, 0}, {}, 128},
  };
  return table;
}

std::vector<std::string> protocol_names() {
  std::vector<std::string> names;
  for (const Protocol& protocol : protocols()) names.push_back(protocol.name);
  return names;
}

}  // namespace

void add_bench_options(CLI::App& command, BenchOptions& o) {
  command.footer(
      "Protocols:\n"
      "  prompt             a length is the prompt's; tokens are generated after it\n"
      "  yoco               that paper's: a length is prompt and generated tokens\n"
      "  block-transformer  that paper's: --cases, the largest batch, time of all of it\n"
      "  decode             one row reads the prompt, all rows of the batch go on from a copy; "
      "only\n"
      "                     that is timed\n"
      "Prompts are rounded up to whole blocks of models that decode in blocks.\n"
      "Example: tandem bench inference runs/yoco configs/transformer.yaml --lengths 512,2048 "
      "--batch 1,8 --out bench.jsonl");
  command
      .add_option("models", o.models,
                  "Checkpoints, run folders, or configs (.yaml: random weights)")
      ->required();
  command.add_option("--reference", o.reference,
                     "The model that the others are compared with; else the last");
  command.add_option("--protocol", o.protocol, "What is measured, see below")
      ->check(CLI::IsMember(protocol_names()))
      ->capture_default_str();
  command
      .add_option("--lengths,--prompt-lengths", o.lengths,
                  "Tokens of a row, separated by commas [128,512,2048; decode: 512,2048,8192]")
      ->delimiter(',')
      ->check(CLI::PositiveNumber);
  command
      .add_option("--cases", o.cases,
                  "Of block-transformer: prompt + generated tokens, separated by commas "
                  "[2048+128,128+2048,8192+128]")
      ->delimiter(',');
  command
      .add_option(
          "--batch", o.batches,
          "Rows, separated by commas; 0 = the largest that fits [1,4; block-transformer: 0; "
          "decode: 1,0]")
      ->delimiter(',')
      ->check(CLI::NonNegativeNumber);
  command
      .add_option(
          "--memory", o.memory_bytes,
          "What the state of a batch of 0 may take at the end, such as 4GiB [CPU: 4GiB; GPU: "
          "what there is, found by trying]")
      ->transform(CLI::AsSizeValue(/*kb_is_1000=*/true));
  command
      .add_option("--decode", o.decode,
                  "Tokens generated after each prompt [64; decode: 128]; YOCO's paper: 1024")
      ->check(CLI::PositiveNumber);
  command.add_option("--repeats", o.repeats, "Measurements after one warm-up")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command
      .add_option("--max-seconds", o.max_seconds,
                  "Of a case: no repeat that would go past it, but at least one; 0 = no limit")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command
      .add_option("--prefill-chunk", o.prefill_chunk, "Prompt tokens of one call; 0 = all at once")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command.add_option("--seed", o.seed, "Of the prompts and of random weights")
      ->capture_default_str();
  command.add_option("--device", o.device, "auto, cpu, cuda or cuda:N")->capture_default_str();
  command.add_option("--dtype", o.dtype, "float32, bfloat16 or float64")->capture_default_str();
  command
      .add_option("--cache-dtype", o.cache_dtype,
                  "Of keys and values in the state: same (as --dtype), float32, bfloat16 or int8")
      ->check(CLI::IsMember(kCacheDtypes))
      ->capture_default_str();
  command.add_option("--out", o.out, "Append each result to this file as a line of JSON");
  command.add_option(
      "--csv", o.csv,
      "Of block-transformer: append each result to this file in the columns of the paper's code "
      "(ms, GiB; mean and population standard deviation), the model in front of them");
  command.add_flag("--json", o.json, "Print results as lines of JSON");
}

void settle_bench_options(const CLI::App& command, bool on_cpu, BenchOptions& o) {
  const auto given = [&](const char* name) { return command.get_option(name)->count() > 0; };
  const auto refuse = [&](const char* name, const std::string& why) {
    if (given(name)) throw bad_usage(std::string(name) + " " + why);
  };
  if (o.protocol == "block-transformer") {
    refuse("--lengths", "has no effect with --protocol block-transformer, which takes --cases");
    refuse("--decode", "has no effect with --protocol block-transformer, which takes --cases");
  } else {
    refuse("--cases", "has no effect without --protocol block-transformer");
    refuse("--csv", "has no effect without --protocol block-transformer");
  }
  const Protocol& protocol = *std::find_if(protocols().begin(), protocols().end(),
                                           [&](const Protocol& p) { return o.protocol == p.name; });
  if (o.lengths.empty()) o.lengths = protocol.lengths;
  if (o.batches.empty()) o.batches = protocol.batches;
  if (o.cases.empty()) o.cases = protocol.cases;
  if (!given("--decode")) o.decode = protocol.decode;
  if (std::find(o.batches.begin(), o.batches.end(), 0) == o.batches.end())
    refuse("--memory", "has no effect without --batch 0, the largest that fits");
  if (!given("--memory") && on_cpu) o.memory_bytes = kStateMemory;
  if (given("--memory") && o.memory_bytes < 1) throw bad_usage("--memory holds no byte");
  if (o.reference.empty()) o.reference = o.models.back();
  if (std::find(o.models.begin(), o.models.end(), o.reference) == o.models.end())
    throw bad_usage("--reference " + o.reference + " is none of the models");
}

}  // namespace tandem
