#pragma once
#include <condition_variable>
#include <exception>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "nn/checkpoint.h"
#include "train/run_dir.h"

namespace tandem {

/// What became of a save.
struct SaveReport {
  int64_t step = 0;
  std::string folder;        // of the checkpoint
  double write_seconds = 0;  // writing and reading it back, beside the training or not
};

/// Writes the checkpoints of a run: in the caller's thread, or in one of its own beside the
/// training. One save at a time; the next waits for the one before it. Contents with a number that
/// is not finite, on any rank, are not written. Every rank calls save(), wait() and busy_anywhere() at the same points of the run, and all come to the same end of a save:
/// its checkpoint, or the same error.
class Saver {
 public:
  Saver(RunDir& dir, bool async);
  /// Finishes what is in flight; its error, if nobody asked for it, is logged.
  ~Saver();
  Saver(const Saver&) = delete;

  /// Starts a save of `contents`, whose tensors nobody may change from here until it is over.
  /// Throws what the save before it threw, and starts nothing then; without a thread of its own,
  /// what this save throws. `protect`: a step whose checkpoint stays whatever `config` keeps.
  void save(CheckpointContents contents, const CheckpointConfig& config,
            std::optional<int64_t> protect);
  /// Waits until nothing is in flight. Throws what the save threw: cannot_write (74), or UserError
  /// with kExitStopped where a tensor held a number that is not finite, which it names.
  void wait();
  /// Something is in flight on this rank: others may be done, so this decides nothing.
  bool busy() const;
  /// Something is in flight on some rank; where not, wait() does not wait. Asks the others only while the outcome of a save is unknown.
  bool busy_anywhere();
  /// The last save that succeeded and was not yet asked for: after wait() the same on all ranks but for its seconds.
  std::optional<SaveReport> take_report();

 private:
  void work();
  RunDir& dir_;
  bool async_;
  // the thread's, guarded by mutex_
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  struct Task {
    CheckpointContents contents;
    CheckpointConfig config;
    std::optional<int64_t> protect;
  };
  std::optional<Task> task_;
  std::exception_ptr error_;
  std::optional<SaveReport> report_;
  bool stop_ = false;
  bool unsettled_ = false;  // a save was started and nobody knows that it is over on all ranks; the caller's thread's
  std::thread thread_;
};

/// The first tensor of `contents`, as this rank holds it, with a number that is not finite; empty when all are
/// finite.
std::string first_not_finite(const CheckpointContents& contents);

}  // namespace tandem
