#pragma once
#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "core/file.h"
#include "nn/checkpoint.h"
#include "train/train_config.h"

namespace tandem {

/// The folder of one run: config.yaml, run.json, log.txt, metrics.jsonl, tb/, lock,
/// checkpoints/step-%08d. One run at a time holds it. All ranks of the run see it and call all that is below, at the same points;
/// rank 0 does what is to be done, and all get its answer or throw its error. save() may run beside
/// whatever does not ask for checkpoints.
class RunDir {
 public:
  /// Makes what is missing, takes the lock and removes what killed saves left. Throws UserError
  /// (exit code 2) naming who holds the lock. The groups hold the same ranks and outlive this; `save` is used by save() alone.
  RunDir(std::string path, Communicator& control, Communicator& save);
  /// Of one process.
  explicit RunDir(std::string path);
  const std::string& path() const { return path_; }
  std::string file(const std::string& name) const { return join_path(path_, name); }
  Communicator& control_group() const { return *control_; }
  Communicator& save_group() const { return *save_; }

  /// The newest checkpoint that verifies; none in a new run. Newer ones that are damaged are named
  /// in a warning and renamed to step-N.damaged. Throws bad_file when there are checkpoints and
  /// none verifies.
  std::optional<Checkpoint> newest();

  /// Writes a checkpoint of what every rank gives, reads it back, and then removes those that `config` no longer keeps, but
  /// for the one of step `protect`; where that fails is only a warning. A checkpoint of the same
  /// step gives way once the new one is whole. Returns its folder. Throws cannot_write; then those
  /// from before are still there.
  std::string save(const CheckpointContents& contents, const CheckpointConfig& config,
                   std::optional<int64_t> protect = {});
  /// Removes the checkpoints of steps above `step`, newest first: the run takes those steps back.
  void remove_after(int64_t step);

  /// Leaves in metrics.jsonl what belongs to steps up to `step`, so that a resumed run writes every
  /// step once.
  void cut_metrics(int64_t step);
  /// metrics.jsonl has a line of this step with this key.
  bool has_metric(int64_t step, const char* key) const;

  /// What record_start() got as `start` from the process before; null in a new run.
  nlohmann::ordered_json last_start() const;
  /// Writes config.yaml, and run.json with `facts` and, under "starts", `start` after those of
  /// earlier processes.
  void record_start(const std::string& config_yaml, const nlohmann::ordered_json& facts,
                    const nlohmann::ordered_json& start);

 private:
  void open();
  std::optional<Checkpoint> find_newest() const;
  void remove_old(const CheckpointConfig& config, std::optional<int64_t> protect, int64_t saved);
  void tidy();
  std::string path_;
  std::unique_ptr<Communicator> alone_;  // where no groups were given
  Communicator *control_, *save_;
  std::unique_ptr<FileLock> lock_;  // of rank 0
};

/// The steps of `steps` (ascending) that go: all but the newest `keep`, the multiples of
/// `keep_every`, and `protect`.
std::vector<int64_t> steps_to_remove(const std::vector<int64_t>& steps,
                                     const CheckpointConfig& config,
                                     std::optional<int64_t> protect = {});

}  // namespace tandem
