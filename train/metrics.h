#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/json_lines.h"
#include "core/progress.h"
#include "nn/device_info.h"
#include "nn/score.h"
#include "train/tensorboard.h"
#include "train/train_config.h"

namespace tandem {

/// Why a step changed no weight.
enum class BadStep { kNone, kNotFinite, kSpike };
const char* name_of(BadStep bad);  ///< "not finite", "spike"

/// What one optimizer step showed.
struct StepStats {
  int64_t step = 0;      // steps done, this one included
  double loss = 0;       // mean NLL of the step's scored targets, before the update
  double grad_norm = 0;  // before clipping
  double lr = 0;
  int64_t tokens = 0;       // of this step
  double seconds = 0;       // of this step, waiting for data included
  double data_seconds = 0;  // waiting for data
  double save_seconds = 0;  // training stood still for a checkpoint before this step
  double wait_seconds = 0;  // waiting for gradients and weights of other ranks
  double sent_bytes = 0;    // to other ranks
  BadStep bad = BadStep::kNone;
};

/// The line of section 9 of the design, which torchtitan's users parse. `tps` is per device; no mfu
/// where the peak is not known.
struct LogLine {
  StepStats stats;  // the step of the line
  MemoryUse memory;
  double tps = 0, tflops = 0;
  std::optional<double> mfu_percent;
  double seconds_left = 0;
  std::string str() const;
};

/// Mean NLL over columns of the row: up to 16 buckets of columns [b * T / n, (b + 1) * T / n); NaN
/// where nothing was scored.
std::vector<double> nll_by_position(const ScoreResult& result);

/// What a run says of itself while it goes: log lines and a progress bar for people, metrics.jsonl
/// and TensorBoard events for programs.
class Metrics {
 public:
  struct Run {
    int64_t first_step = 0, steps = 0;  // done before this object was made, of the whole run
    int64_t tokens_before = 0;          // learnt from before that
    double flops_per_token = 0;         // of training
    int64_t block_length = 1;           // of a model that reads blocks: validation shows their slots
    int64_t ranks = 1;                  // that share the tokens: tps is per device
    torch::Device device = torch::kCPU;
    std::optional<double> peak_flops;
  };
  /// Appends to FOLDER/metrics.jsonl and makes a new event file in FOLDER/tb.
  Metrics(const std::string& folder, const MetricsConfig& config, const Run& run);
  /// A line of metrics.jsonl; at the first step it sees and each log_every also a log line
  /// and TensorBoard points.
  void step(const StepStats& stats);
  void validation(int64_t step, const ScoreResult& result, double seconds);
  /// metrics.jsonl survives a loss of power as it stands now.
  void sync() { lines_.sync(); }
  /// Ends the progress bar.
  void finish();

 private:
  void log_step(const StepStats& stats);
  MetricsConfig config_;
  Run run_;
  JsonLinesWriter lines_;
  std::optional<TensorboardWriter> tensorboard_;
  std::optional<Progress> progress_;
  int64_t tokens_;
  // since the last log line
  int64_t recent_steps_ = 0, recent_tokens_ = 0;
  double recent_seconds_ = 0, recent_data_seconds_ = 0;
};

}  // namespace tandem
