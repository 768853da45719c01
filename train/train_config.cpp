#include "train/train_config.h"

#include <algorithm>
#include <numeric>
#include <thread>

#include "core/yaml_scalar.h"

namespace tandem {
namespace {

constexpr int64_t kMicroBatchTokens = 16'384;

/// The most rows of `rows` that divide it and make up to kMicroBatchTokens, at least one.
int64_t default_micro_batch_size(int64_t rows, int64_t context_length) {
  int64_t size = std::clamp<int64_t>(kMicroBatchTokens / context_length, 1, rows);
  while (rows % size != 0) --size;
  return size;
}

bool has_end(const LrScheduleConfig& schedule) { return schedule.name != "constant"; }
bool has_decay(const LrScheduleConfig& schedule) { return schedule.name == "warmup_stable_decay"; }

int64_t default_decay_steps(int64_t warmup_steps, int64_t steps) {
  return std::clamp<int64_t>(steps / 5, 1, std::max<int64_t>(1, steps - warmup_steps));
}

/// Warm-up and decay fit into `steps`, which the key `steps_key` gave.
void check_fits(Checker& check, const LrScheduleConfig& schedule, int64_t steps,
                const std::string& steps_key) {
  if (!has_end(schedule)) return;
  const int64_t warmup = schedule.warmup_steps;
  const std::string end = steps_key + " (" + std::to_string(steps) + ")";
  check.require(warmup < steps, "warmup_steps", std::to_string(warmup), "less than " + end);
  if (!has_decay(schedule) || !schedule.decay_steps) return;
  const int64_t decay = *schedule.decay_steps;
  check.require(decay <= steps - warmup, "decay_steps", std::to_string(decay),
                "at most " + end + " less warmup_steps (" + std::to_string(warmup) + ")");
}

/// What the schedule's section must keep to because of other sections. A visitor of its own, so
/// that messages name the schedule's lines.
struct ScheduleRules {
  const TrainConfig& config;
  template <typename Visitor>
  void fields(Visitor&) {}
  void check(Checker& check) const {
    const LrScheduleConfig& schedule = config.lr_schedule;
    check.require(schedule.min_lr <= config.optimizer.lr, "min_lr", number_text(schedule.min_lr),
                  "at most optimizer.lr (" + number_text(config.optimizer.lr) + ")");
    const bool staged = config.stages.kind == ConfigNode::Kind::kList;  // then Plan knows its end
    if (!schedule.steps && !staged)
      check_fits(check, schedule, config.training.steps, "training.steps");
  }
};

/// What elastic runs cannot have.
struct ElasticRules {
  const TrainConfig& config;
  template <typename Visitor>
  void fields(Visitor&) {}
  void check(Checker& check) const {
    if (config.training.deterministic != "elastic") return;
    const ParallelismConfig& parallelism = config.parallelism;
    const std::string with = " with training.deterministic: elastic";
    check.require(parallelism.shard == "none", "shard", parallelism.shard, "none" + with);
    check.require(parallelism.tensor == 1, "tensor", std::to_string(parallelism.tensor),
                  "1" + with);
    check.require(parallelism.sequence == 1, "sequence", std::to_string(parallelism.sequence),
                  "1" + with);
    check.require(parallelism.reduce_dtype == "float32", "reduce_dtype", parallelism.reduce_dtype,
                  "float32" + with);
  }
};

/// training.steps beside stages.
struct StepRules {
  const TrainConfig& config;
  template <typename Visitor>
  void fields(Visitor&) {}
  void check(Checker& check) const {
    if (config.stages.kind == ConfigNode::Kind::kNull) return;
    const auto steps = stage_steps(config.stages);
    const int64_t sum = std::accumulate(steps.begin(), steps.end(), int64_t{0});
    check.require(!check.written("steps") || config.training.steps == sum, "steps",
                  std::to_string(config.training.steps),
                  "the sum of the stages' steps (" + std::to_string(sum) + "), or nothing");
  }
};

}  // namespace

void SourceConfig::check(Checker& check) const {
  check.require(!path.empty(), "path", path, "a token file");
  check.require(!dtype || *dtype == "uint16" || *dtype == "uint32", "dtype", dtype.value_or(""),
                "uint16 or uint32");
  check.require(!max_length || *max_length >= min_length.value_or(1), "max_length",
                std::to_string(max_length.value_or(0)),
                "at least min_length (" + std::to_string(min_length.value_or(1)) + ")");
}

TokenFileSpec SourceConfig::file() const {
  return {path, dtype, eos_id, target_weights ? TargetWeights::kRead : TargetWeights::kNone};
}

ViewSpec SourceConfig::filter() const {
  return {.min_length = min_length.value_or(0), .max_length = max_length.value_or(0)};
}

ViewSpec TrainSourceConfig::view() const {
  ViewSpec spec = filter();
  if (upsample) {
    spec.upsample_from = upsample->from;
    spec.upsample_times = upsample->times;
  }
  return spec;
}

void TrainingConfig::check(Checker& check) const {
  const std::string length = "context_length (" + std::to_string(context_length) + ")";
  check.require(deterministic != "elastic" || threads.value_or(1) == 1, "threads",
                std::to_string(threads.value_or(1)), "1 with deterministic: elastic");
  if (batch_ramp) {
    check.require(batch_ramp->from <= tokens_per_step, "batch_ramp",
                  "{from: " + std::to_string(batch_ramp->from) + ", ...}",
                  "from at most tokens_per_step (" + std::to_string(tokens_per_step) + ")");
  }
  if (!micro_batch_size) {
    check.require(tokens_per_step % context_length == 0, "tokens_per_step",
                  std::to_string(tokens_per_step), "a multiple of " + length);
    return;
  }
  int64_t product = 0;
  const bool holds = !__builtin_mul_overflow(context_length, *micro_batch_size, &product) &&
                     tokens_per_step % product == 0;
  check.require(holds, "tokens_per_step", std::to_string(tokens_per_step),
                "a multiple of " + length + " * micro_batch_size (" +
                    std::to_string(*micro_batch_size) + ")");
}

void OptimizerConfig::check(Checker& check) const {
  const auto text = [&] {
    std::string list;
    for (const double beta : betas) list += (list.empty() ? "" : ", ") + number_text(beta);
    return "[" + list + "]";
  };
  const bool holds = betas.size() == 2 && betas[0] < 1 && betas[1] < 1;
  check.require(holds, "betas", text(), "two numbers, each at least 0 and below 1");
}

void LrScheduleConfig::check(Checker& check) const {
  if (steps) check_fits(check, *this, *steps, "steps");
}

void TrainConfig::check(Checker& check) const {
  check.require(model.config != nullptr, "model", "absent", "a map that begins with `family`");
  ScheduleRules schedule{*this};
  check.section("lr_schedule", schedule);
  ElasticRules elastic{*this};
  check.section("parallelism", elastic);
  StepRules steps{*this};
  check.section("training", steps);
}

std::vector<int64_t> stage_steps(const ConfigNode& stages) {
  using Kind = ConfigNode::Kind;
  if (stages.kind == Kind::kNull) return {};
  if (stages.kind != Kind::kList || stages.items.empty())
    throw bad_value(stages.origin, "stages", inline_yaml(stages),
                    "a list of maps, each with steps and what changes");
  std::vector<int64_t> steps;
  for (size_t i = 0; i < stages.items.size(); ++i) {
    const std::string key = "stages[" + std::to_string(i) + "]";
    const ConfigNode& stage = stages.items[i];
    if (stage.kind != Kind::kMap || !stage.find("steps"))
      throw bad_value(stage.origin, key, inline_yaml(stage), "a map with steps");
    struct Steps {
      int64_t steps = 0;
      void fields(ConfigReader& visit) { visit.value("steps", steps, at_least(1)); }
    } read;
    ConfigNode only = ConfigNode::make_map();
    only.origin = stage.origin;
    only.entries.emplace_back("steps", *stage.find("steps"));
    ConfigReader::read_into(only, key, read);
    steps.push_back(read.steps);
  }
  return steps;
}

TrainConfig make_train_config(const ModelFactory& factory) {
  TrainConfig config;
  config.model = factory.choice();
  return config;
}

void resolve(TrainConfig& config, const ModelFactory& factory, const Tokenizer& tokenizer,
             std::optional<int64_t> schedule_steps, int64_t data_ranks) {
  factory.set_vocab_size(config.model, tokenizer.vocab_size());

  TrainingConfig& training = config.training;
  if (!training.micro_batch_size) {
    // In an elastic run it must not depend on the ranks.
    const int64_t sharing = training.deterministic == "elastic" ? 1 : data_ranks;
    const int64_t rows = std::max<int64_t>(1, training.rows_per_step() / sharing);
    training.micro_batch_size = default_micro_batch_size(rows, training.context_length);
  }
  if (!training.threads && training.deterministic == "elastic") training.threads = 1;
  if (!training.threads) training.threads = std::max(1u, std::thread::hardware_concurrency());

  LrScheduleConfig& schedule = config.lr_schedule;
  if (has_end(schedule) && !schedule.steps)
    schedule.steps = schedule_steps.value_or(training.steps);
  if (has_decay(schedule) && !schedule.decay_steps) {
    schedule.decay_steps = default_decay_steps(schedule.warmup_steps, *schedule.steps);
  }
}

std::vector<std::string> settings_without_effect(const TrainConfig& config) {
  const LrScheduleConfig& schedule = config.lr_schedule;
  std::vector<std::string> sentences;
  const auto add = [&](const std::string& key, const std::string& why) {
    sentences.push_back(key + " has no effect: " + why);
  };
  const std::string schedule_is = "lr_schedule.name is " + schedule.name;
  if (!has_end(schedule) && schedule.steps) add("lr_schedule.steps", schedule_is);
  if (!has_end(schedule) && schedule.min_lr != 0) add("lr_schedule.min_lr", schedule_is);
  if (!has_decay(schedule) && schedule.decay_steps) add("lr_schedule.decay_steps", schedule_is);
  const ParallelismConfig& parallelism = config.parallelism;
  if (parallelism.shard == "none" && parallelism.replicate != 1)
    add("parallelism.replicate", "parallelism.shard is none, so that every rank is a replica");
  const BadStepConfig& bad = config.bad_steps;
  if (bad.spike == "ignore" && bad.spike_window != BadStepConfig{}.spike_window)
    add("bad_steps.spike_window", "bad_steps.spike is ignore");
  if (bad.spike == "ignore" && bad.spike_threshold != BadStepConfig{}.spike_threshold)
    add("bad_steps.spike_threshold", "bad_steps.spike is ignore");
  if (config.data.validation.empty() && config.validation.every != ValidationConfig{}.every) {
    add("validation.every", "data.validation is empty");
  }
  if (config.data.validation.empty() && config.validation.tokens != ValidationConfig{}.tokens) {
    add("validation.tokens", "data.validation is empty");
  }
  return sentences;
}

}  // namespace tandem
