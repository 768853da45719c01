#include "eval/needle.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>
#include <numeric>

#include "core/error.h"
#include "eval/needle_reader.h"
#include "eval/needle_scores.h"
#include "eval/needle_table.h"
#include "nn/generate.h"

namespace tandem {
namespace {

using Json = nlohmann::ordered_json;

bool plants_several(const std::string& protocol, const std::string& task) {
  return protocol == "yoco" && task != "single";
}

std::vector<std::string> tasks_of(const NeedleConfig& config) {
  const NeedleProtocol& protocol = needle_protocol(config.protocol);
  if (config.tasks.empty()) return {protocol.tasks.front()};
  return config.tasks == std::vector<std::string>{"all"} ? protocol.tasks : config.tasks;
}

// One for each cell, depths last: those of one line are neighbours.
std::vector<NeedleSetConfig> sets_of(const NeedleConfig& config, uint64_t seed) {
  std::vector<NeedleSetConfig> sets;
  for (const std::string& task : tasks_of(config)) {
    const bool several = plants_several(config.protocol, task);
    for (const int64_t needles : several ? config.needles : std::vector<int64_t>{1}) {
      for (const int64_t length : config.lengths) {
        for (const double depth : depths_of(config, task)) {
          sets.push_back({.protocol = config.protocol,
                          .task = task,
                          .length = length,
                          .depth = depth,
                          .samples = config.samples,
                          .needles = needles,
                          .seed = seed,
                          .haystack = config.haystack,
                          .remove_needle = config.remove_needle,
                          .cache = config.cache});
        }
      }
    }
  }
  return sets;
}

// Whether they differ in depth only, so that their samples hide needles in the same text.
bool same_line(const NeedleSetConfig& a, const NeedleSetConfig& b) {
  return a.task == b.task && a.needles == b.needles && a.length == b.length;
}

// What a text cannot hold: BOS, padding, and what a vocabulary was padded with.
std::vector<int64_t> never_drawn(int64_t vocab_size, const Tokenizer& tokenizer) {
  const int64_t known = std::min(vocab_size, tokenizer.vocab_size());
  std::vector<int64_t> ids(static_cast<size_t>(vocab_size - known));
  std::iota(ids.begin(), ids.end(), known);
  for (const auto& id : {tokenizer.bos(), tokenizer.special_id("<pad>")}) {
    if (id && *id < known && id != tokenizer.eos()) ids.push_back(*id);
  }
  return ids;
}

std::string with_space(const std::string& prompt, const std::string& value) {
  return prompt.ends_with(' ') || prompt.ends_with('\n') ? value : " " + value;
}

/// The cells of one model.
class NeedleCells {
 public:
  NeedleCells(const NeedleConfig& config, const EvalArgs& args, const std::string& input,
              const LoadedModel& loaded)
      : config_(config),
        args_(args),
        input_(input),
        loaded_(loaded),
        protocol_(needle_protocol(config.protocol)),
        sets_(sets_of(config, args.seed)) {}

  std::vector<Cell> all() {
    std::vector<Cell> cells;
    for (size_t i = 0; i < sets_.size(); ++i)
      cells.push_back({identity(sets_[i]), [this, i] { return measure(i); }});
    return cells;
  }

 private:
  struct Questions {
    std::vector<NeedleSample> samples;
    std::vector<NeedleQuestion> questions;
  };

  const Tokenizer& tokenizer() const { return *loaded_.tokenizer; }

  Json identity(const NeedleSetConfig& set) const {
    Json json = about("needle", args_, input_, loaded_);
    json["protocol"] = set.protocol;
    json["task"] = set.task;
    json["needles"] = set.needles;
    json["length"] = set.length;
    json["depth"] = set.depth;
    json["samples"] = set.samples;
    json["haystack"] = needle_filler(set);
    json["remove_needle"] = set.remove_needle;
    json["set"] = needle_set_hash(set, tokenizer());
    json["max_new_tokens"] = protocol_.max_new_tokens;
    json["decoys"] = config_.decoys;
    json["chunk"] = config_.chunk;
    json["cache_dtype"] = config_.cache_dtype;
    return json;
  }

  NeedleQuestion question(const NeedleSample& sample) const {
    NeedleQuestion made{.prompt = needle_prompt(sample, protocol_, tokenizer()), .candidates = {}};
    const std::string text = sample.input + sample.answer_prefix;
    const auto add = [&](const std::string& value) {
      made.candidates.push_back(ids_behind(text, with_space(text, value), tokenizer()));
    };
    add(sample.outputs.front());
    if (config_.decoys) std::for_each(sample.decoys.begin(), sample.decoys.end(), add);
    for (const auto& ids : made.candidates) check_ids(ids);
    check_ids(made.prompt);
    return made;
  }

  void check_ids(const std::vector<int64_t>& ids) const {
    const int64_t most = *std::max_element(ids.begin(), ids.end());
    if (most < loaded_.model->vocab_size()) return;
    throw bad_file(loaded_.checkpoint,
                   fmt::format("its tokenizer gives token {}, its vocabulary ends at {}", most,
                               loaded_.model->vocab_size() - 1));
  }

  // Kept until the next cell has had them.
  std::shared_ptr<const Questions> questions_of(size_t i) {
    if (const auto found = questions_.find(i); found != questions_.end()) return found->second;
    auto made = std::make_shared<Questions>();
    made->samples = needle_set(sets_[i], tokenizer());
    for (const NeedleSample& sample : made->samples) made->questions.push_back(question(sample));
    questions_[i] = made;
    return made;
  }

  NeedleReader& reader_of(size_t i) {
    if (reader_ && same_line(sets_[i], sets_[reader_line_])) return *reader_;
    const LanguageModel& model = *loaded_.model;
    NeedleReaderConfig config{.chunk = config_.chunk, .rows = args_.batch};
    // Room for padding, for the block that the last token begins, and for the longest candidate.
    constexpr int64_t kLongestCandidate = 64;
    config.capacity = sets_[i].length + 2 * model.packing().multiple + kLongestCandidate;
    config.memory_bytes = static_cast<int64_t>(config_.memory_gib * std::pow(2.0, 30));
    config.max_new_tokens = protocol_.max_new_tokens;
    if (tokenizer().eos()) config.stop_ids = {*tokenizer().eos()};
    config.forbidden = never_drawn(model.vocab_size(), tokenizer());
    config.cache_dtype = cache_dtype_of(config_.cache_dtype);
    reader_ = std::make_unique<NeedleReader>(*loaded_.model, config);
    reader_line_ = i;
    return *reader_;
  }

  NeedleAnswer answer(const NeedleReading& reading) const {
    if (std::isnan(reading.log_probs.front()))
      throw bad_file(loaded_.checkpoint, "the model's log-probabilities are not numbers");
    std::vector<int32_t> ids(reading.ids.begin(), reading.ids.end());
    if (!ids.empty() && tokenizer().eos() == ids.back()) ids.pop_back();
    return {.text = tokenizer().decode(ids),
            .log_probs = reading.log_probs,
            .first_token_rank = reading.first_token_rank};
  }

  Json measure(size_t i) {
    const auto asked = questions_of(i);
    std::shared_ptr<const Questions> next;
    if (i + 1 < sets_.size() && same_line(sets_[i], sets_[i + 1])) next = questions_of(i + 1);
    std::erase_if(questions_, [&](const auto& entry) { return entry.first != i + 1; });
    NeedleReader& reader = reader_of(i);
    const int64_t fed_before = reader.tokens_fed();
    const auto begin = std::chrono::steady_clock::now();
    const auto readings =
        reader.read(asked->questions, next ? std::span<const NeedleQuestion>(next->questions)
                                           : std::span<const NeedleQuestion>());
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;

    std::vector<NeedleAnswer> answers;
    for (const NeedleReading& reading : readings) answers.push_back(answer(reading));
    Json json = to_json(needle_scores(asked->samples, answers));
    double tokens = 0;
    json["answers"] = Json::array();
    for (size_t s = 0; s < answers.size(); ++s) {
      tokens += static_cast<double>(asked->samples[s].length);
      json["answers"].push_back({{"expected", asked->samples[s].outputs},
                                 {"answer", answers[s].text},
                                 {"depth", asked->samples[s].depth},
                                 {"log_prob", answers[s].log_probs.front()}});
    }
    json["prompt_tokens"] = tokens / static_cast<double>(answers.size());
    json["tokens_fed"] = reader.tokens_fed() - fed_before;
    json["state_bytes"] = reader.peak_state_bytes();
    json["seconds"] = seconds.count();
    return json;
  }

  const NeedleConfig& config_;
  const EvalArgs& args_;
  const std::string& input_;
  const LoadedModel& loaded_;
  const NeedleProtocol& protocol_;
  const std::vector<NeedleSetConfig> sets_;
  std::map<size_t, std::shared_ptr<const Questions>> questions_;
  std::unique_ptr<NeedleReader> reader_;
  size_t reader_line_ = 0;
};

void check_model(const NeedleConfig& config, const LoadedModel& loaded, const std::string& input) {
  if (!loaded.tokenizer) {
    throw bad_file(loaded.checkpoint,
                   "holds no tokenizer to write prompts with; import it with --config, a config "
                   "that names data.tokenizer");
  }
  const Packing packing = loaded.model->packing();
  if (packing.max_length == 0) return;
  for (const int64_t length : config.lengths) {
    if (length <= longest_needle_text(packing)) continue;
    throw bad_usage(fmt::format("--lengths {}, expected at most {}: {} has {} positions{}", length,
                                longest_needle_text(packing), input, packing.max_length,
                                packing.pad_documents ? ", some for padding to blocks" : ""));
  }
}

void check_config(const NeedleConfig& config) {
  if (!config.depths.empty() && config.depth_count)
    throw bad_usage("--depths and --depth-count, expected one of them");
  if (config.lengths.empty()) throw bad_usage("eval needle needs --lengths");
  const auto tasks = tasks_of(config);
  const bool several = std::any_of(tasks.begin(), tasks.end(), [&](const std::string& task) {
    return plants_several(config.protocol, task);
  });
  if (!several && config.needles != std::vector<int64_t>{1}) {
    throw bad_usage(
        fmt::format("--needles {} has no effect on {} {}: only yoco's multi and "
                    "multi_dot leave their number open",
                    fmt::join(config.needles, ","), config.protocol, fmt::join(tasks, ", ")));
  }
}

}  // namespace

std::vector<double> depths_of(const NeedleConfig& config, const std::string& task) {
  if (!config.depths.empty()) return config.depths;
  const bool several = plants_several(config.protocol, task);
  const int64_t n = config.depth_count.value_or(several ? 10 : 11);
  std::vector<double> depths;
  for (int64_t k = 0; k < n; ++k) {
    const auto at = static_cast<double>(several ? k + 1 : k);
    depths.push_back(!several && n == 1 ? 0.5 : at / static_cast<double>(several ? n + 1 : n - 1));
  }
  return depths;
}

int64_t longest_needle_text(const Packing& packing) {
  const int64_t whole = packing.max_length / packing.multiple * packing.multiple;
  // Prompt and answer are rounded up to blocks each.
  return packing.pad_documents ? whole - 2 * (packing.multiple - 1) : whole;
}

const char* const kNeedleHelp =
    R"(Facts are hidden in texts of --lengths tokens at several depths, and asked for. --protocol is yoco, ruler, block-transformer, lwm, gkamradt or phonebook; --tasks are of
that protocol (absent: its first; all). A cell is one length and one depth of --samples questions; --depths lists depths from 0 (start) to 1 (end), --depth-count spaces so many evenly
(absent: 11; for yoco's multi tasks 10, k/11). --needles says how many yoco's multi and multi_dot hide (1, 2, 4, 8). --haystack is a folder or file of essays, the prefix of a
token file, or noise; --cache keeps the questions in a folder. --remove-needle true is the control: the question stays, the answer is not in the text.
Scores: substring, the published rule; exact, the answer's first number is the one asked for; decoy accuracy, its log-probability is above that of every wrong answer of the same form
(equal ones share; --decoys false leaves this out). Prompts are read in pieces of --chunk tokens; what prompts begin with in common is read once. Keys and values are held
in --cache-dtype (same as --dtype, float32, bfloat16 or int8), states in --memory-gib, which long prompts share with their clones; --batch is the most prompts read together.
Example: tandem eval needle runs/yoco --lengths 4096,65536,1048576 --samples 3 --haystack essays --cache sets --out needle.jsonl)";

EvalTable run_needle(const NeedleConfig& config, const EvalArgs& args) {
  check_config(config);
  std::vector<Json> records;
  for (const std::string& input : args.inputs) {
    const LoadedModel loaded = args.load(input);
    check_model(config, loaded, input);
    NeedleCells work(config, args, input, loaded);
    const std::vector<Cell> cells = work.all();
    const auto found = args.cells->run("needle " + input, cells);
    records.insert(records.end(), found.begin(), found.end());
  }
  return needle_table(records);
}

}  // namespace tandem
