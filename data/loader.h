#pragma once
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "data/sampler.h"

namespace tandem {

/// Reads rows ahead of the training loop on one thread. Rows are asked for by sample number, so there is no state to save.
class Loader {
 public:
  /// Keeps up to `ahead` groups of `group` consecutive samples ready, beginning with `first_sample`.
  Loader(std::shared_ptr<const Sampler> sampler, int64_t first_sample, int64_t group, int64_t ahead = 4);
  ~Loader();
  /// Rows first .. first + group - 1; groups are taken in order. Rethrows what the reading thread met.
  std::vector<Row> next();

 private:
  void read_ahead();
  std::shared_ptr<const Sampler> sampler_;
  int64_t next_read_, next_given_, group_, ahead_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<int64_t, std::vector<Row>> ready_;
  std::exception_ptr error_;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace tandem
