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

/// Reads rows ahead of the training loop on one thread. Rows are asked for by sample number, so there is no state to save.
class Loader {
 public:
  /// How many rows the k-th group has, k counted from the loader's first: at least 1. Called on the reading thread, once for each k in order.
  using GroupSizes = std::function<int64_t(int64_t k)>;
  /// Keeps up to `ahead` groups of consecutive samples ready, beginning with `first_sample`.
  Loader(std::shared_ptr<const Sampler> sampler, int64_t first_sample, GroupSizes rows_of_group, int64_t ahead = 4);
  ~Loader();
  /// The next group. Rethrows what the reading thread met.
  std::vector<Row> next();

 private:
  void read_ahead(int64_t first_sample);
  std::vector<Row> read_group(int64_t k, int64_t first_sample) const;
  std::shared_ptr<const Sampler> sampler_;
  GroupSizes rows_of_group_;
  int64_t ahead_;
  std::mutex mutex_;  // of all below
  std::condition_variable changed_;
  std::deque<std::vector<Row>> ready_;
  std::exception_ptr error_;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace tandem
