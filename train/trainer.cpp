#include "train/trainer.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <thread>
#include <utility>

#include "core/error.h"
#include "core/log.h"
#include "data/loader.h"
#include "nn/batch.h"
#include "nn/sequence_parallel.h"
#include "train/async_save.h"
#include "train/metrics.h"
#include "train/plan.h"
#include "train/replicas.h"
#include "train/run_dir.h"
#include "train/setup.h"
#include "train/start_record.h"
#include "train/step_facts.h"
#include "train/stop_signal.h"
#include "train/validation.h"

namespace tandem {
namespace {

using nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

bool due(int64_t step, int64_t every) { return step % every == 0; }

/// Also writes the log to a run's file, unless `path` is empty, for as long as it lives.
class LogFile {
 public:
  explicit LogFile(std::string path) : path_(std::move(path)) {
    if (!path_.empty()) set_log_file(path_);
  }
  ~LogFile() {
    if (!path_.empty()) set_log_file("");
  }

 private:
  std::string path_;
};

/// Why steps are no longer taken under the present stage.
enum class Leave { kStageDone, kStopped, kRollback, kPolicy };

/// An even share of this machine's cores; one in elastic runs, whose sums must not depend on it.
int64_t default_threads(const TrainConfig& config, const TrainOptions& options) {
  if (config.training.deterministic == "elastic") return 1;
  const auto cores = static_cast<int64_t>(std::thread::hardware_concurrency());
  return std::max<int64_t>(1, cores / options.ranks_of_machine);
}

/// One rank's part of a run.
class Trainer {
 public:
  Trainer(TrainConfig config, const ModelFactory& factory, const TrainOptions& options)
      : given_(std::move(config)),
        factory_(factory),
        options_(options),
        mesh_(*options.mesh),
        dir_(options.run_folder, *mesh_.control, *mesh_.save),
        log_(first_rank() ? dir_.file("log.txt") : "") {}

  TrainOutcome train();

 private:
  bool first_rank() const { return mesh_.world->rank() == 0; }
  bool prepare();
  void enter(const std::optional<Checkpoint>& checkpoint);
  void record_start();
  std::unique_ptr<Metrics> make_metrics() const;
  Leave run_stage();
  Leave judge(const StepStats& stats) const;
  void roll_back();
  bool validate(Metrics* metrics);
  double save();
  bool written(const std::function<void()>& write) const;
  void settle(bool wait);
  void finish(Leave leave);

  int64_t steps() const { return plan_->steps(); }
  const TrainConfig& config() const { return stage_->config; }
  /// A rank received a signal, as all of them know.
  bool stopping() const { return stop_signal_ != 0; }
  bool validation_due(int64_t step) const {
    const TrainConfig& config = plan_->at(step - 1).config;
    return !config.data.validation.empty() &&
           (due(step, config.validation.every) || step == steps());
  }
  /// A process that was stopped between a step and its validation leaves that to the next one.
  bool validation_missing(int64_t step) const {
    return step > 0 && validation_due(step) && !dir_.has_metric(step, "validation_loss");
  }
  bool replicas_due() const {
    const int64_t every = config().communication.compare_replicas_every;
    return every > 0 && (due(run_.step, every) || plan_->checkpoint_due(run_.step));
  }
  bool stop_at_reached() const { return options_.stop_at && run_.step >= *options_.stop_at; }

  TrainConfig given_;
  const ModelFactory& factory_;
  const TrainOptions& options_;
  Mesh& mesh_;
  StopSignal signal_;
  int stop_signal_ = 0;  // that some rank received, agreed upon
  RunDir dir_;
  LogFile log_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::optional<Plan> plan_;
  const Stage* stage_ = nullptr;  // of the next step
  std::shared_ptr<const Sampler> sampler_;
  Origins origins_;
  std::optional<Validation> validation_;
  Run run_;
  CheckpointContents snapshot_;  // its tensors are used again
  std::optional<Saver> saver_;
  double save_seconds_ = 0;       // training stood still for a checkpoint since the last step
  bool save_failed_ = false;      // the newest one was not written, and on_error is warn
  ordered_json weights_from_;     // "random", or where they were read
  bool validation_left_ = false;  // a signal came before that of run_.step was done
  TrainOutcome outcome_;
};

TrainOutcome Trainer::train() {
  if (!prepare()) return outcome_;
  record_start();
  saver_.emplace(dir_, plan_->config().checkpoint.async);
  Leave leave = run_stage();
  while (leave == Leave::kRollback || (leave == Leave::kStageDone && run_.step < steps())) {
    if (leave == Leave::kRollback) {
      roll_back();
    } else {
      settle(/*wait=*/true);
      if (save_failed_) {  // the next stage starts from it: once more
        save();
        settle(/*wait=*/true);
      }
      if (save_failed_) break;
      enter(Checkpoint(outcome_.checkpoint));  // as a process would that begins here
      log_left_out(*stage_, *sampler_, *validation_);
    }
    leave = run_stage();
  }
  settle(/*wait=*/true);
  finish(leave);
  return outcome_;
}

/// Comes to the run's state before its next step; false when there is none.
bool Trainer::prepare() {
  options_.report(0, "setting up");
  const std::optional<Checkpoint> checkpoint = dir_.newest();
  std::optional<TrainConfig> old_config;
  if (checkpoint) {
    old_config = config_of(*checkpoint, factory_);
    if (!given_.training.threads) given_.training.threads = old_config->training.threads;
  }
  if (!given_.training.threads) given_.training.threads = default_threads(given_, options_);
  tokenizer_ = load_tokenizer(given_.data.tokenizer);
  plan_.emplace(given_, factory_, *tokenizer_, mesh_.data->size());
  check_mesh(*plan_, mesh_.shape);
  check_data(*plan_, *tokenizer_, checkpoint ? checkpoint->step() : 0);
  make_deterministic(*plan_->config().training.threads);

  if (checkpoint) {
    const int64_t step = checkpoint->step();
    const Stage& wrote = plan_->at(std::max<int64_t>(step - 1, 0));
    check_same_run(dir_.path(), *checkpoint, *old_config, wrote,
                   origins_of(*tokenizer_, *make_sampler(wrote.config, wrote.packing)));
    outcome_.step = step;
    outcome_.checkpoint = checkpoint->folder();
    if (step >= steps() && !validation_missing(step)) {
      log_line(fmt::format("{}: finished, at step {} of {}", dir_.path(), step, steps()));
      return false;
    }
  }
  enter(checkpoint);
  dir_.cut_metrics(run_.step);
  return true;
}

/// The run as `checkpoint` holds it, or a new one, and what its next steps need.
void Trainer::enter(const std::optional<Checkpoint>& checkpoint) {
  run_ = {};  // its memory first
  snapshot_ = {};
  const int64_t step = checkpoint ? checkpoint->step() : 0;
  // A validation that a stop prevented at the end of a stage is still that stage's.
  stage_ = &plan_->at(validation_missing(step) ? step - 1 : step);
  sampler_ = make_sampler(config(), stage_->packing);
  origins_ = origins_of(*tokenizer_, *sampler_);
  if (checkpoint) {
    run_ = resumed_run(*checkpoint, *stage_, factory_, mesh_, options_.device);
    weights_from_ = {{"checkpoint", checkpoint->folder()}, {"step", checkpoint->step()}};
  } else {
    run_ = new_run(config(), factory_, *tokenizer_, mesh_, options_.device, &weights_from_);
  }
  validation_.emplace(config(), stage_->packing);
  validation_->check_ids(run_.model->vocab_size());
}

void Trainer::record_start() {
  const ordered_json facts = {{"parameters", count_parameters(*run_.model)},
                              {"tokenizer_hash", origins_.tokenizer},
                              {"data_hash", origins_.data}};
  const ordered_json start = start_record(run_, config(), weights_from_, options_.command);
  if (run_.step > 0) warn_of_changes(dir_.last_start(), start);
  TrainConfig shown = plan_->config();
  dir_.record_start(to_yaml(write_config(shown)), facts, start);
  log_summary(*plan_, *stage_, run_, *sampler_, dir_.path());
  if (mesh_.shape.sequence > 1)
    log_line(imbalance_message(mesh_.shape.sequence, config().training.context_length));
  log_left_out(*stage_, *sampler_, *validation_);
}

/// The first rank's; nullptr elsewhere.
std::unique_ptr<Metrics> Trainer::make_metrics() const {
  if (!first_rank()) return nullptr;
  const TrainingConfig& training = config().training;
  return std::make_unique<Metrics>(
      dir_.path(), config().metrics,
      Metrics::Run{.first_step = run_.step,
                   .steps = steps(),
                   .tokens_before = plan_->tokens_before(run_.step),
                   .flops_per_token = flops_per_token(*run_.model, training.context_length).total(),
                   .block_length = stage_->packing.multiple,
                   .ranks = mesh_.world->size(),
                   .device = options_.device,
                   .peak_flops = peak_flops(device_name(options_.device), dtype_of(training))});
}

/// Steps until the stage is done or something else ends it. The state is saved then, but for
/// kRollback and kPolicy.
Leave Trainer::run_stage() {
  if (plan_->stages().size() > 1 && run_.step == stage_->begin)
    log_line(
        fmt::format("stage {}: steps {} to {}", stage_->index, stage_->begin + 1, stage_->end));
  const auto metrics = make_metrics();
  if (validation_missing(run_.step)) validation_left_ = !validate(metrics.get());

  const int64_t rows_each = config().training.micro_batch_size.value();
  const auto share_at = [this, rows_each](int64_t step) {
    return share_of(plan_->rows(step) / rows_each, mesh_);
  };
  const auto rows_of_step =
      [=, this, first_step = run_.step, next = run_.next_sample,
       end = std::min(stage_->end, options_.stop_at.value_or(stage_->end))](int64_t k) mutable {
        if (first_step + k >= end) return SampleRange{};
        const MicroBatches share = share_at(first_step + k);
        const int64_t first = std::exchange(next, next + share.total * rows_each);
        return SampleRange{first + share.first * rows_each, share.n * rows_each};
      };
  const int64_t ahead =
      groups_ahead(share_at(run_.step).n * rows_each, config().training.context_length);
  Loader loader(sampler_, rows_of_step, ahead, rows_memory_for(options_.device));
  Leave leave = validation_left_ || stop_at_reached() ? Leave::kStopped : Leave::kStageDone;
  while (run_.step < stage_->end && leave == Leave::kStageDone) {
    const auto begin = Clock::now();
    options_.report(run_.step + 1, "waiting for data");
    const auto rows = loader.next();
    const double data_seconds = seconds_since(begin);
    apply_packing(rows->view(), stage_->packing);
    options_.report(run_.step + 1, "training");
    StepStats stats =
        train_step(run_, rows->view(), share_at(run_.step), config(), plan_->lr(run_.step));
    mesh_.set_time_limit(config().communication.step_seconds);  // the first one took longer
    stats.data_seconds = data_seconds;
    stats.seconds = seconds_since(begin);
    stats.save_seconds = std::exchange(save_seconds_, 0);
    if (metrics) written([&] { metrics->step(stats); });
    outcome_.step = run_.step;
    outcome_.loss = stats.loss;
    stop_signal_ = agree_on(*mesh_.control, {run_.step, run_.next_sample, stats.loss,
                                             stats.grad_norm, run_.skipped, signal_.received()});
    settle(/*wait=*/false);
    leave = judge(stats);
    if (leave != Leave::kStageDone) break;
    if (replicas_due()) compare_replicas(run_);
    validation_left_ = validation_due(run_.step) && !validate(metrics.get());
    if (stopping() || stop_at_reached()) leave = Leave::kStopped;
    if (leave == Leave::kStopped || plan_->checkpoint_due(run_.step)) {
      if (metrics)  // a checkpoint does not survive the metrics of its steps
        written([&] { metrics->sync(); });
      save_seconds_ = save();
    }
  }
  if (metrics) metrics->finish();
  return leave;
}

/// What the policies for bad steps make of one; kStageDone: go on.
Leave Trainer::judge(const StepStats& stats) const {
  if (stats.bad == BadStep::kNone) return Leave::kStageDone;
  const BadStepConfig& policies = config().bad_steps;
  const std::string& policy = stats.bad == BadStep::kSpike ? policies.spike : policies.non_finite;
  if (policy == "stop") return Leave::kPolicy;
  if (policy == "skip")
    return run_.skipped_in_a_row >= policies.max_skips ? Leave::kPolicy : Leave::kStageDone;
  return run_.rollbacks >= policies.max_rollbacks ? Leave::kPolicy : Leave::kRollback;
}

/// Goes back to the newest scheduled checkpoint before the bad step and leaves out the samples from
/// there to that step, which is included. Checkpoints that a signal left in between do not count:
/// a run does the same however often it was stopped.
void Trainer::roll_back() {
  settle(/*wait=*/true);
  const int64_t bad_step = run_.step, next_sample = run_.next_sample,
                rollbacks = run_.rollbacks + 1;
  const int64_t samples_begin = plan_->at(bad_step - 1).samples_begin;
  const int64_t target = run_.last_due;
  const std::string folder = checkpoint_folder(dir_.path(), target);
  if (target > 0 && exists(folder)) Checkpoint(folder).verify();  // before newer ones go
  dir_.remove_after(target);
  const std::optional<Checkpoint> checkpoint = dir_.newest();
  enter(checkpoint);
  if (stage_->samples_begin == samples_begin) run_.next_sample = next_sample;
  run_.rollbacks = rollbacks;
  dir_.cut_metrics(run_.step);
  outcome_.step = run_.step;
  outcome_.checkpoint = checkpoint ? checkpoint->folder() : "";
  log_warning(fmt::format(
      "step {} was bad: back to step {}, going on with sample {} (rollback {} of {})", bad_step,
      run_.step, run_.next_sample, rollbacks, config().bad_steps.max_rollbacks));
}

/// False when a signal came first.
bool Trainer::validate(Metrics* metrics) {
  const auto begin = Clock::now();
  options_.report(run_.step, "validating");
  const auto result = validation_->score(run_, [this] {
    stop_signal_ = agree_on_signal(*mesh_.control, signal_.received());
    return stopping();
  });
  if (!result) return false;
  if (metrics) written([&] { metrics->validation(run_.step, *result, seconds_since(begin)); });
  outcome_.validation_loss = result->nll_sum / result->weight;
  return true;
}

/// Hands a copy of the state to the saver; returns the seconds that took.
double Trainer::save() {
  const auto begin = Clock::now();
  options_.report(run_.step, "saving");
  settle(/*wait=*/true);
  run_.optimizer->snapshot(snapshot_);
  if (plan_->checkpoint_due(run_.step)) run_.last_due = run_.step;
  TrainConfig resolved = config();
  snapshot_.step = run_.step;
  snapshot_.config_yaml = to_yaml(write_config(resolved));
  snapshot_.tokenizer_model = tokenizer_->model_bytes();
  snapshot_.tokenizer_file = tokenizer_->file_name();
  snapshot_.state = state_of(run_, *stage_, origins_);
  const auto hand_over = [this] { saver_->save(snapshot_, config().checkpoint, run_.last_due); };
  if (!written(hand_over)) save_failed_ = true;
  if (!config().checkpoint.async) settle(/*wait=*/true);
  return seconds_since(begin);
}

/// True when `write` came through. That something cannot be written is thrown, or with on_error:
/// warn logged.
bool Trainer::written(const std::function<void()>& write) const {
  try {
    write();
    return true;
  } catch (const UserError& error) {
    if (error.exit_code() != kExitCannotWrite || config().checkpoint.on_error != "warn") throw;
    log_warning(std::string(error.what()) + " (checkpoint.on_error is warn)");
    return false;
  }
}

/// Notices what became of saves.
void Trainer::settle(bool wait) {
  if (!wait && saver_->busy_anywhere()) return;
  if (!written([this] { saver_->wait(); })) save_failed_ = true;
  if (const auto report = saver_->take_report()) {
    save_failed_ = false;
    outcome_.checkpoint = report->folder;
    log_line(fmt::format("saved {} in {:.2f} s", report->folder, report->write_seconds));
  }
}

/// Says how it ended.
void Trainer::finish(Leave leave) {
  const std::string newest = outcome_.checkpoint.empty() ? "none" : outcome_.checkpoint;
  if (run_.skipped > 0)
    log_line(fmt::format("{} of {} steps changed no weight, as they were not finite or a spike",
                         run_.skipped, run_.step));
  if (leave == Leave::kPolicy) {
    log_warning(fmt::format(
        "stopped after step {} by bad_steps: {} in a row changed no weight, {} rollbacks; the last "
        "checkpoint is {}",
        run_.step, run_.skipped_in_a_row, run_.rollbacks, newest));
    outcome_.exit_code = kExitStopped;
  } else if (save_failed_) {
    log_warning(fmt::format("the state after step {} could not be saved; the last checkpoint is {}",
                            run_.step, newest));
    outcome_.exit_code = kExitCannotWrite;
  } else if (validation_left_ || (stopping() && run_.step < steps())) {
    log_line(fmt::format("stopped after step {} of {}{}; the same command goes on from there",
                         run_.step, steps(), validation_left_ ? ", before its validation" : ""));
    outcome_.exit_code = 128 + stop_signal_;
  } else if (run_.step < steps()) {
    log_line(fmt::format(
        "stopped after step {} of {}, as --stop-at {} says; the same command without it goes on",
        run_.step, steps(), *options_.stop_at));
  } else {
    log_line(fmt::format("finished after step {}", run_.step));
  }
}

}  // namespace

TrainOutcome train(TrainConfig config, const ModelFactory& factory, const TrainOptions& options) {
  return Trainer(std::move(config), factory, options).train();
}

}  // namespace tandem
