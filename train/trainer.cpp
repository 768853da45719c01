#include "train/trainer.h"

#include <fmt/format.h>
#include <torch/version.h>
#include <unistd.h>

#include <chrono>
#include <ctime>

#include "core/error.h"
#include "core/log.h"
#include "core/version.h"
#include "data/loader.h"
#include "train/metrics.h"
#include "train/run_dir.h"
#include "train/setup.h"
#include "train/stop_signal.h"
#include "train/validation.h"

namespace tandem {
namespace {

using nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

constexpr int64_t kMostSkippedInARow = 3;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

/// Says what is another than at the run's last start and can change the numbers of a step.
void warn_of_changes(const ordered_json& before, const ordered_json& now) {
  for (const char* key : {"device_name", "tandem", "libtorch", "compiler"}) {
    if (!before.is_object() || !before.contains(key) || before.at(key) == now.at(key)) continue;
    log_warning(fmt::format("{} was {}, is {}; further steps may differ in their last bits", key,
                            before.at(key).dump(), now.at(key).dump()));
  }
}

bool due(int64_t step, int64_t every) { return step % every == 0; }

std::string utc_now() {
  char text[32];
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

/// Also writes the log to a run's file for as long as it lives.
class LogFile {
 public:
  explicit LogFile(const std::string& path) { set_log_file(path); }
  ~LogFile() { set_log_file(""); }
};

/// One process's part of a run.
class Trainer {
 public:
  Trainer(TrainConfig config, const ModelFactory& factory, const TrainOptions& options)
      : config_(std::move(config)),
        factory_(factory),
        options_(options),
        dir_(options.run_folder),
        log_(dir_.file("log.txt")) {}

  TrainOutcome train() {
    if (!prepare()) return outcome_;
    record_start();
    log_summary();
    loop();
    return outcome_;
  }

 private:
  bool prepare();
  void record_start();
  void log_summary() const;
  Metrics make_metrics() const;
  void loop();
  bool validate(Metrics& metrics);
  void save();
  void finish();

  bool stopping() const { return signal_.received() != 0; }
  bool validation_due(int64_t step) const {
    return !config_.data.validation.empty() &&
           (due(step, config_.validation.every) || step == config_.training.steps);
  }
  /// A process that was stopped between a step and its validation leaves that to the next one.
  bool validation_missing(int64_t step) const {
    return step > 0 && validation_due(step) && !dir_.has_metric(step, "validation_loss");
  }
  bool stop_at_reached() const { return options_.stop_at && run_.step >= *options_.stop_at; }

  TrainConfig config_;
  const ModelFactory& factory_;
  const TrainOptions& options_;
  StopSignal signal_;
  RunDir dir_;
  LogFile log_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::shared_ptr<const Sampler> sampler_;
  Origins origins_;
  std::optional<Validation> validation_;
  Run run_;
  ordered_json weights_from_;     // "random", or where they were read
  bool validation_left_ = false;  // a signal came before that of run_.step was done
  TrainOutcome outcome_;
};

/// Comes to the run's state before its next step; false when there is none.
bool Trainer::prepare() {
  const std::optional<Checkpoint> checkpoint = dir_.newest();
  std::optional<TrainConfig> old_config;
  if (checkpoint) {
    old_config = config_of(*checkpoint, factory_);
    if (!config_.training.threads) config_.training.threads = old_config->training.threads;
  }
  tokenizer_ = load_tokenizer(config_.data.tokenizer);
  resolve(config_, factory_, *tokenizer_);
  make_deterministic(*config_.training.threads);
  sampler_ = make_sampler(config_);
  origins_ = origins_of(*tokenizer_, *sampler_);

  if (checkpoint) {
    check_same_run(dir_.path(), *checkpoint, *old_config, config_, origins_);
    outcome_.step = checkpoint->step();
    outcome_.checkpoint = checkpoint->folder();
    if (checkpoint->step() >= config_.training.steps && !validation_missing(checkpoint->step())) {
      log_line(fmt::format("{}: finished, at step {} of {}", dir_.path(), checkpoint->step(),
                           config_.training.steps));
      return false;
    }
    run_ = resumed_run(*checkpoint, config_, factory_, options_.device);
    weights_from_ = {{"checkpoint", checkpoint->folder()}, {"step", checkpoint->step()}};
  } else {
    run_ = new_run(config_, factory_, *tokenizer_, options_.device, &weights_from_);
  }
  validation_.emplace(config_, run_.model->packing());
  validation_->check_ids(run_.model->vocab_size());
  dir_.cut_metrics(run_.step);
  return true;
}

void Trainer::record_start() {
  char host[256] = "localhost";
  gethostname(host, sizeof host - 1);
  const ordered_json facts = {{"parameters", count_parameters(*run_.model)},
                              {"tokenizer_hash", origins_.tokenizer},
                              {"data_hash", origins_.data}};
  const ordered_json start = {{"time", utc_now()},
                              {"step", run_.step},
                              {"weights", weights_from_},
                              {"host", host},
                              {"process", getpid()},
                              {"command", options_.command},
                              {"device", options_.device.str()},
                              {"device_name", device_name(options_.device)},
                              {"threads", config_.training.threads.value()},
                              {"tandem", kTandemVersion},
                              {"libtorch", TORCH_VERSION},
                              {"compiler", __VERSION__}};
  if (run_.step > 0) warn_of_changes(dir_.last_start(), start);
  dir_.record_start(to_yaml(write_config(config_)), facts, start);
}

void Trainer::log_summary() const {
  const TrainingConfig& training = config_.training;
  const Flops flops = flops_per_token(*run_.model, training.context_length);
  std::string parts;
  for (const auto& [name, part] : flops.parts)
    parts += fmt::format("{}{} {:.3g}", parts.empty() ? "" : ", ", name, part);
  const int64_t tokens = training.tokens_per_step * training.steps,
                epoch = sampler_->tokens_per_epoch();
  log_line(fmt::format("model: {}, {} parameters, {}", config_.model.name,
                       with_commas(count_parameters(*run_.model)), training.dtype));
  log_line(fmt::format("FLOPs per token of training: {:.3g} ({})", flops.total(), parts));
  log_line(fmt::format("data: {} tokens, {:.2f} epochs of {}", with_commas(tokens),
                       static_cast<double>(tokens) / static_cast<double>(epoch),
                       with_commas(epoch)));
  log_line(fmt::format("steps: {} of {} tokens = {} x micro-batch of {} x {}",
                       with_commas(training.steps), with_commas(training.tokens_per_step),
                       training.rows_per_step() / *training.micro_batch_size,
                       *training.micro_batch_size, training.context_length));
  log_line(fmt::format("device: {} ({}), {} threads", options_.device.str(),
                       device_name(options_.device), *training.threads));
  log_line(fmt::format("run folder: {}{}", dir_.path(),
                       run_.step > 0 ? fmt::format(", going on after step {}", run_.step) : ""));
  for (const auto& sentence : settings_without_effect(config_)) log_warning(sentence);
}

Metrics Trainer::make_metrics() const {
  return Metrics(
      dir_.path(), config_.metrics,
      {.first_step = run_.step,
       .steps = config_.training.steps,
       .tokens_before = run_.step * config_.training.tokens_per_step,
       .flops_per_token = flops_per_token(*run_.model, config_.training.context_length).total(),
       .device = options_.device,
       .peak_flops = peak_flops(device_name(options_.device), dtype_of(config_.training))});
}

void Trainer::loop() {
  Metrics metrics = make_metrics();
  if (validation_missing(run_.step)) validation_left_ = !validate(metrics);

  const int64_t rows_per_step = config_.training.rows_per_step();
  Loader loader(sampler_, run_.step * rows_per_step, rows_per_step);
  bool leave = validation_left_ || stop_at_reached();
  while (run_.step < config_.training.steps && !leave) {
    const auto begin = Clock::now();
    std::vector<Row> rows = loader.next();
    const double data_seconds = seconds_since(begin);
    apply_packing(rows, run_.model->packing());
    StepStats stats = train_step(run_, rows, config_);
    stats.data_seconds = data_seconds;
    stats.seconds = seconds_since(begin);
    metrics.step(stats);
    outcome_.step = run_.step;
    outcome_.loss = stats.loss;
    if (run_.skipped_in_a_row == kMostSkippedInARow) break;
    validation_left_ = validation_due(run_.step) && !validate(metrics);
    leave = stopping() || stop_at_reached();
    if (leave || due(run_.step, config_.checkpoint.every) || run_.step == config_.training.steps) {
      metrics.sync();  // a checkpoint never survives the metrics of its steps
      save();
    }
  }
  metrics.finish();
  finish();
}

/// False when a signal came first.
bool Trainer::validate(Metrics& metrics) {
  const auto begin = Clock::now();
  const auto result = validation_->score(*run_.model, run_.device, [this] { return stopping(); });
  if (!result) return false;
  metrics.validation(run_.step, *result, seconds_since(begin));
  outcome_.validation_loss = result->nll_sum / result->weight;
  return true;
}

void Trainer::save() {
  CheckpointContents contents;
  contents.step = run_.step;
  contents.weights = run_.optimizer->weights();
  contents.optimizer = run_.optimizer->pieces();
  contents.config_yaml = to_yaml(write_config(config_));
  contents.tokenizer_model = tokenizer_->model_bytes();
  contents.state = state_of(run_, config_, origins_);
  outcome_.checkpoint = dir_.save(contents, config_.checkpoint);
  log_line("saved " + outcome_.checkpoint);
}

/// Says how it ended.
void Trainer::finish() {
  const int64_t steps = config_.training.steps;
  if (run_.skipped > 0)
    log_line(fmt::format("{} of {} steps were skipped, as their loss or gradient was not finite",
                         run_.skipped, run_.step));
  if (run_.skipped_in_a_row == kMostSkippedInARow) {
    log_warning(fmt::format(
        "stopped after step {}: loss or gradient was not finite in {} steps in a row; the last "
        "checkpoint is {}",
        run_.step, kMostSkippedInARow, outcome_.checkpoint.empty() ? "none" : outcome_.checkpoint));
    outcome_.exit_code = kExitStopped;
  } else if (validation_left_ || (stopping() && run_.step < steps)) {
    log_line(fmt::format("stopped after step {} of {}{}; the same command goes on from there",
                         run_.step, steps, validation_left_ ? ", before its validation" : ""));
    outcome_.exit_code = 128 + signal_.received();
  } else if (run_.step < steps) {
    log_line(fmt::format(
        "stopped after step {} of {}, as --stop-at {} says; the same command without it goes on",
        run_.step, steps, *options_.stop_at));
  } else {
    log_line(fmt::format("finished after step {}", run_.step));
  }
}

}  // namespace

TrainOutcome train(TrainConfig config, const ModelFactory& factory, const TrainOptions& options) {
  return Trainer(std::move(config), factory, options).train();
}

}  // namespace tandem
