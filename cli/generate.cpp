#include "nn/generate.h"

#include <fmt/format.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <numeric>

#include "cli/commands.h"
#include "cli/load_model.h"
#include "cli/output.h"
#include "cli/parse.h"
#include "core/error.h"
#include "core/json_lines.h"
#include "core/log.h"
#include "eval/streaming_text.h"

namespace tandem {
namespace {

struct Options {
  std::string path, prompt, bos = "auto", device = "auto", dtype = "float32", cache_dtype = "same";
  GenerateConfig config;
  bool json = false;
};

std::optional<int> parse(Options& o, int argc, const char* const* argv) {
  CLI::App app("Continue a text with a trained model, streaming to standard output", argv[0]);
  app.footer(
      "Example: tandem generate runs/yoco --prompt \"In the beginning\" --temperature 0.8 --top-p "
      "0.95 --seed 1");
  app.add_option("model", o.path, "Checkpoint or run folder")->required();
  app.add_option("--prompt", o.prompt, "Text to continue")->required();
  app.add_option("--max-new-tokens", o.config.max_new_tokens, "Tokens to add at most")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--temperature", o.config.sampling.temperature,
                 "0 always takes the likeliest token")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--top-k", o.config.sampling.top_k, "Draw from the k likeliest tokens; 0 = all")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--top-p", o.config.sampling.top_p,
                 "Draw from the fewest likeliest tokens that reach this probability")
      ->check([](const std::string& word) {
        double p = 0;
        return CLI::detail::lexical_cast(word, p) && p > 0 && p <= 1
                   ? std::string()
                   : word + " is not above 0 and at most 1";
      })
      ->capture_default_str();
  app.add_option("--seed", o.config.sampling.seed, "The same seed draws the same text")
      ->capture_default_str();
  app.add_option("--stop", o.config.stop, "End before this text; may be given again")
      ->allow_extra_args(false);
  app.add_option("--bos", o.bos,
                 "Token before the prompt: eos (documents are separated by it in training), bos, "
                 "none; auto = eos if there is one")
      ->check(CLI::IsMember({"auto", "eos", "bos", "none"}))
      ->capture_default_str();
  app.add_option("--prefill-chunk", o.config.prefill_chunk,
                 "Prompt tokens of one call; 0 = all at once")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--device", o.device, "auto, cpu, cuda or cuda:N")->capture_default_str();
  app.add_option("--dtype", o.dtype, "float32, bfloat16 or float64")->capture_default_str();
  app.add_option("--cache-dtype", o.cache_dtype,
                 "Of the keys and values held: same (as --dtype), float32, bfloat16 or int8")
      ->check(CLI::IsMember(kCacheDtypes))
      ->capture_default_str();
  app.add_flag("--json", o.json, "Print one JSON object at the end in place of the stream");
  return parse_arguments(app, argc, argv);
}

std::optional<int32_t> first_token(const std::string& rule, const Tokenizer& tokenizer) {
  if (rule == "none") return std::nullopt;
  const auto token = rule == "bos" ? tokenizer.bos() : tokenizer.eos();
  if (!token && rule != "auto")
    throw bad_usage("--bos " + rule + ": the tokenizer has no such token");
  return token;
}

std::vector<int64_t> prompt_ids(const Options& o, const LoadedModel& loaded) {
  std::vector<int64_t> ids;
  if (const auto first = first_token(o.bos, *loaded.tokenizer)) ids.push_back(*first);
  const auto text = loaded.tokenizer->encode(o.prompt);
  ids.insert(ids.end(), text.begin(), text.end());
  if (ids.empty()) throw bad_usage("--prompt is empty and --bos gives no token to begin with");
  for (const int64_t id : ids) {
    if (id >= loaded.model->vocab_size()) {
      throw bad_usage("the prompt holds token " + std::to_string(id) +
                      ", the model's vocabulary ends at " +
                      std::to_string(loaded.model->vocab_size() - 1) +
                      "; was the model trained with this tokenizer?");
    }
  }
  return ids;
}

void check_length(const std::vector<std::vector<int64_t>>& prompts, int64_t max_new_tokens,
                  const LanguageModel& model) {
  const Packing packing = model.packing();
  if (packing.max_length == 0 ||
      length_when_continued(model, prompts, max_new_tokens) <= packing.max_length)
    return;
  const auto n = static_cast<int64_t>(prompts.front().size());
  const int64_t padding = packing.padding_to_continue(n);
  throw bad_usage(fmt::format(
      "prompt of {} tokens{} and --max-new-tokens {}, expected at most {} together, the positions "
      "of the model",
      n, padding > 0 ? fmt::format(", {} of padding in front of it", padding) : "", max_new_tokens,
      packing.max_length));
}

// Ids that stand for no text: BOS, and what a vocabulary was padded with.
std::vector<int64_t> never_drawn(const LoadedModel& loaded) {
  const int64_t vocab_size = loaded.model->vocab_size(),
                known = std::min(vocab_size, loaded.tokenizer->vocab_size());
  std::vector<int64_t> ids(static_cast<size_t>(vocab_size - known));
  std::iota(ids.begin(), ids.end(), known);
  const auto bos = loaded.tokenizer->bos();
  if (bos && *bos < known && bos != loaded.tokenizer->eos()) ids.push_back(*bos);
  return ids;
}

}  // namespace

int run_generate(int argc, const char* const* argv) {
  Options o;
  if (const auto code = parse(o, argc, argv)) return *code;
  for (const std::string& stop : o.config.stop) {
    if (stop.empty()) throw bad_usage("--stop is empty");
  }
  const LoadedModel loaded = load_model(o.path, parse_device(o.device), parse_dtype(o.dtype));
  if (!loaded.tokenizer) {
    throw bad_file(loaded.checkpoint,
                   "holds no tokenizer to read the prompt with; import it with --config, a config "
                   "that names data.tokenizer");
  }
  const std::vector<std::vector<int64_t>> prompts = {prompt_ids(o, loaded)};
  check_length(prompts, o.config.max_new_tokens, *loaded.model);
  o.config.sampling.forbidden = never_drawn(loaded);
  o.config.cache_dtype = cache_dtype_of(o.cache_dtype);
  if (const auto eos = loaded.tokenizer->eos()) o.config.stop_ids = {*eos};
  o.config.make_text = [&] { return std::make_unique<StreamingText>(*loaded.tokenizer); };
  if (!o.json) o.config.on_text = [](int64_t, const std::string& text) { print(text); };

  const auto begin = std::chrono::steady_clock::now();
  const Generated result = generate(*loaded.model, prompts, o.config).front();
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  if (!o.json) {
    print("\n");
    char line[160];
    std::snprintf(line, sizeof line, "prompt %zu tokens, then %zu in %.2f s; ended by %s",
                  prompts[0].size(), result.ids.size(), seconds, name_of(result.reason));
    log_line(line);
    return kExitDone;
  }
  const nlohmann::ordered_json json = {{"model", o.path},
                                       {"checkpoint", loaded.checkpoint},
                                       {"step", loaded.step},
                                       {"prompt", o.prompt},
                                       {"prompt_tokens", prompts[0].size()},
                                       {"text", result.text},
                                       {"ids", result.ids},
                                       {"stop_reason", name_of(result.reason)},
                                       {"temperature", o.config.sampling.temperature},
                                       {"top_k", o.config.sampling.top_k},
                                       {"top_p", o.config.sampling.top_p},
                                       {"seed", o.config.sampling.seed},
                                       {"dtype", o.dtype},
                                       {"cache_dtype", o.cache_dtype},
                                       {"seconds", seconds}};
  print(json.dump() + "\n");
  return kExitDone;
}

}  // namespace tandem
