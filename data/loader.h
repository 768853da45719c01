#pragma once
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "data/sampler.h"

namespace tandem {

/// Consecutive samples.
struct SampleRange {
  int64_t first = 0, n = 0;
};
/// The part of a step's samples that data rank `rank` of `world` reads: rows [rank n / world, (rank + 1) n / world), so that the parts in the order of ranks are the step.
SampleRange share_of(SampleRange step, int64_t rank, int64_t world);

/// How many groups of so many rows to keep ready: 16 MiB of them, which is a second of small ones and hides a slow disk, but 4 to 64.
int64_t groups_ahead(int64_t rows, int64_t length);

/// Reads rows ahead of the training loop on one thread. Rows are asked for by sample number, so there is no state to save. What a disk has to bring for the groups behind those that are ready, as many again, it is told before
/// they are read: it works on all of them at once, where reading alone would wait for one row after the other.
class Loader {
 public:
  /// The samples of the k-th group; none where the groups end. Called on the reading thread, once for each k in order up to the end, before the groups in front of it are read.
  using Groups = std::function<SampleRange(int64_t k)>;
  /// Keeps up to `ahead` groups ready, each in memory of its own from `make_memory`, which is called on the reading thread.
  Loader(std::shared_ptr<const Sampler> sampler, Groups groups, int64_t ahead = 4, MakeRowsMemory make_memory = make_rows_memory);
  ~Loader();
  /// The next group. Rethrows what the reading thread met. Throws std::logic_error behind the last group.
  std::unique_ptr<RowsMemory> next();

 private:
  void read_ahead();
  void ask_for_groups();
  std::unique_ptr<RowsMemory> read_group(SampleRange group) const;
  std::shared_ptr<const Sampler> sampler_;
  Groups groups_;
  int64_t ahead_;
  MakeRowsMemory make_memory_;
  std::deque<SampleRange> asked_;  // groups that are asked for and not yet read; the reading thread's own, as the next one
  int64_t next_asked_ = 0;
  std::mutex mutex_;  // of all below
  std::condition_variable changed_;
  std::deque<std::unique_ptr<RowsMemory>> ready_;
  std::exception_ptr error_;
  bool ended_ = false;  // nothing more will be ready
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace tandem
