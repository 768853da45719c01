#include "train/metrics.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "core/file.h"
#include "core/log.h"

namespace tandem {
namespace {

using nlohmann::ordered_json;

constexpr double kGib = 1024.0 * 1024.0 * 1024.0;
constexpr size_t kMostBuckets = 16;

double percent(const MemoryUse& memory) {
  return memory.limit > 0 ? 100 * memory.bytes / memory.limit : 0;
}

}  // namespace

const char* name_of(BadStep bad) {
  switch (bad) {
    case BadStep::kNotFinite:
      return "not finite";
    case BadStep::kSpike:
      return "spike";
    case BadStep::kNone:
      break;
  }
  return "";
}

std::string LogLine::str() const {
  const std::string mfu = mfu_percent ? fmt::format("{:.2f}%", *mfu_percent) : "n/a";
  return fmt::format(
             "step: {}  loss: {:.5f}  grad_norm: {:.4f}  memory: {:.2f}GiB({:.2f}%)  tps: {}  "
             "tflops: {:.2f}  mfu: {}  lr: {:.3e}  left: {}",
             stats.step, stats.loss, stats.grad_norm, memory.bytes / kGib, percent(memory),
             with_commas(std::llround(tps)), tflops, mfu, stats.lr, human_duration(seconds_left)) +
         (stats.bad == BadStep::kNone ? "" : fmt::format("  no update: {}", name_of(stats.bad)));
}

std::vector<double> nll_by_position(const ScoreResult& result) {
  const size_t columns = result.nll_by_position.size(), n = std::min(columns, kMostBuckets);
  std::vector<double> means(n, std::numeric_limits<double>::quiet_NaN());
  for (size_t b = 0; b < n; ++b) {
    double sum = 0, count = 0;
    for (size_t t = b * columns / n; t < (b + 1) * columns / n; ++t) {
      sum += result.nll_by_position[t];
      count += result.count_by_position[t];
    }
    if (count > 0) means[b] = sum / count;
  }
  return means;
}

Metrics::Metrics(const std::string& folder, const MetricsConfig& config, const Run& run)
    : config_(config),
      run_(run),
      lines_(join_path(folder, "metrics.jsonl")),
      tokens_(run.tokens_before) {
  if (config.tensorboard) tensorboard_.emplace(join_path(folder, "tb"), run.first_step + 1);
  // Without a terminal the log lines are progress enough.
  if (isatty(STDERR_FILENO)) progress_.emplace("train", run.steps, "steps", run.first_step);
}

void Metrics::step(const StepStats& stats) {
  tokens_ += stats.tokens;
  recent_steps_ += 1;
  recent_tokens_ += stats.tokens;
  recent_seconds_ += stats.seconds;
  recent_data_seconds_ += stats.data_seconds;

  ordered_json line = {{"step", stats.step},
                       {"loss", stats.loss},
                       {"grad_norm", stats.grad_norm},
                       {"lr", stats.lr},
                       {"tokens", tokens_},
                       {"seconds", stats.seconds},
                       {"data_seconds", stats.data_seconds}};
  if (stats.save_seconds > 0) line["save_seconds"] = stats.save_seconds;
  if (run_.ranks > 1) {
    line["wait_seconds"] = stats.wait_seconds;
    line["sent_bytes"] = stats.sent_bytes;
  }
  if (stats.bad != BadStep::kNone) line["skipped"] = name_of(stats.bad);
  lines_.write(line);
  if (stats.step == run_.first_step + 1 || stats.step % config_.log_every == 0 ||
      stats.bad != BadStep::kNone)
    log_step(stats);
  if (progress_) progress_->update(stats.step, fmt::format("loss {:.4f}", stats.loss));
}

void Metrics::log_step(const StepStats& stats) {
  LogLine line{.stats = stats, .memory = memory_use(run_.device), .mfu_percent = {}};
  line.tps = static_cast<double>(recent_tokens_) / recent_seconds_ / static_cast<double>(run_.ranks);
  const double flops = line.tps * run_.flops_per_token;
  line.tflops = flops / 1e12;
  if (run_.peak_flops) line.mfu_percent = 100 * flops / *run_.peak_flops;
  line.seconds_left = recent_seconds_ / static_cast<double>(recent_steps_) *
                      static_cast<double>(run_.steps - stats.step);
  if (progress_) progress_->clear();
  log_line(line.str());

  if (tensorboard_) {
    Scalars scalars = {
        {"loss_metrics/global_avg_loss", stats.loss},
        {"loss_metrics/global_max_loss", stats.loss},  // over ranks
        {"grad_norm", stats.grad_norm},
        {"lr", stats.lr},
        {"total_tokens", static_cast<double>(tokens_)},
        {"throughput(tps)", line.tps},
        {"tflops", line.tflops},
        {"time_metrics/end_to_end(s)", recent_seconds_ / static_cast<double>(recent_steps_)},
        {"time_metrics/data_loading(s)", recent_data_seconds_ / static_cast<double>(recent_steps_)},
        {"time_metrics/data_loading(%)", 100 * recent_data_seconds_ / recent_seconds_},
        {"memory/max_active(GiB)", line.memory.bytes / kGib},
        {"memory/max_active(%)", percent(line.memory)}};
    if (line.mfu_percent) scalars.emplace_back("mfu(%)", *line.mfu_percent);
    tensorboard_->write(stats.step, scalars);
  }
  recent_steps_ = recent_tokens_ = 0;
  recent_seconds_ = recent_data_seconds_ = 0;
}

void Metrics::validation(int64_t step, const ScoreResult& result, double seconds) {
  const double loss = result.nll_sum / result.weight;
  const auto by_position = nll_by_position(result);
  ordered_json line = {{"step", step},
                       {"validation_loss", loss},
                       {"validation_tokens", static_cast<int64_t>(result.weight)},
                       {"seconds", seconds},
                       {"nll_by_position", by_position}};
  std::vector<double> slots;
  std::string slots_text;
  if (run_.block_length > 1) {
    slots = means(by_block_position(result, run_.block_length));
    line["nll_by_block_position"] = slots;
    slots_text = fmt::format("  loss_by_block_position: {:.4f}", fmt::join(slots, " "));
  }
  lines_.write(line);
  if (progress_) progress_->clear();
  const MemoryUse memory = memory_use(run_.device);
  log_line(fmt::format(
      "validate step: {}  loss: {:.5f}  ppl: {:.3f}  memory: {:.2f}GiB({:.2f}%)  tps: {}{}", step,
      loss, std::exp(loss), memory.bytes / kGib, percent(memory),
      with_commas(std::llround(result.weight / seconds)), slots_text));
  if (!tensorboard_) return;
  Scalars scalars = {{"validation_metrics/loss", loss}};
  const auto add = [&](const char* tag, const std::vector<double>& losses) {
    for (size_t i = 0; i < losses.size(); ++i) {
      if (std::isfinite(losses[i]))
        scalars.emplace_back(fmt::format("validation_metrics/{}/{}", tag, i), losses[i]);
    }
  };
  add("loss_by_position", by_position);
  add("loss_by_block_position", slots);
  tensorboard_->write(step, scalars);
}

void Metrics::finish() {
  if (progress_) progress_->finish();
}

}  // namespace tandem
