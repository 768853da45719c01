#include "data/loader.h"

#include <stdexcept>
#include <string>
#include <utility>

namespace tandem {

Loader::Loader(std::shared_ptr<const Sampler> sampler, int64_t first_sample,
               GroupSizes rows_of_group, int64_t ahead)
    : sampler_(std::move(sampler)), rows_of_group_(std::move(rows_of_group)), ahead_(ahead) {
  if (!sampler_ || !rows_of_group_ || first_sample < 0 || ahead < 1) {
    throw std::logic_error("Loader: first_sample = " + std::to_string(first_sample) +
                           ", ahead = " + std::to_string(ahead) +
                           ", expected a sampler, group sizes, first_sample >= 0, ahead >= 1");
  }
  thread_ = std::thread([this, first_sample] { read_ahead(first_sample); });
}

Loader::~Loader() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

std::vector<Row> Loader::read_group(int64_t k, int64_t first_sample) const {
  const int64_t n = rows_of_group_(k);
  if (n < 1) {
    throw std::logic_error("Loader: group " + std::to_string(k) + " has " + std::to_string(n) +
                           " rows, expected at least 1");
  }
  std::vector<Row> rows;
  rows.reserve(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) rows.push_back(sampler_->row(first_sample + i));
  return rows;
}

void Loader::read_ahead(int64_t first_sample) {
  std::unique_lock lock(mutex_);
  for (int64_t k = 0;; ++k) {
    changed_.wait(lock, [&] { return stop_ || static_cast<int64_t>(ready_.size()) < ahead_; });
    if (stop_) return;
    lock.unlock();
    std::vector<Row> rows;
    std::exception_ptr error;
    try {
      rows = read_group(k, first_sample);
      first_sample += static_cast<int64_t>(rows.size());
    } catch (...) {
      error = std::current_exception();
    }
    lock.lock();
    error_ = error;
    if (!error) ready_.push_back(std::move(rows));
    changed_.notify_all();
    if (error) return;
  }
}

std::vector<Row> Loader::next() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return error_ || !ready_.empty(); });
  if (ready_.empty()) std::rethrow_exception(error_);  // after all that was read before it
  std::vector<Row> rows = std::move(ready_.front());
  ready_.pop_front();
  changed_.notify_all();
  return rows;
}

}  // namespace tandem
