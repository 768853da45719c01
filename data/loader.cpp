#include "data/loader.h"

#include <stdexcept>
#include <utility>

namespace tandem {

Loader::Loader(std::shared_ptr<const Sampler> sampler, int64_t first_sample, int64_t group,
               int64_t ahead)
    : sampler_(std::move(sampler)),
      next_read_(first_sample),
      next_given_(first_sample),
      group_(group),
      ahead_(ahead) {
  if (!sampler_ || first_sample < 0 || group < 1 || ahead < 1) {
    throw std::logic_error("Loader: first_sample = " + std::to_string(first_sample) + ", group = " +
                           std::to_string(group) + ", ahead = " + std::to_string(ahead) +
                           ", expected a sampler, first_sample >= 0, group >= 1, ahead >= 1");
  }
  thread_ = std::thread([this] { read_ahead(); });
}

Loader::~Loader() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void Loader::read_ahead() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] { return stop_ || static_cast<int64_t>(ready_.size()) < ahead_; });
    if (stop_) return;
    lock.unlock();
    std::vector<Row> rows;
    std::exception_ptr error;
    try {
      rows.reserve(static_cast<size_t>(group_));
      for (int64_t i = 0; i < group_; ++i) rows.push_back(sampler_->row(next_read_ + i));
    } catch (...) {
      error = std::current_exception();
    }
    lock.lock();
    if (error) {
      error_ = error;
    } else {
      ready_.emplace(next_read_, std::move(rows));
      next_read_ += group_;
    }
    changed_.notify_all();
    if (error) return;
  }
}

std::vector<Row> Loader::next() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return error_ || ready_.contains(next_given_); });
  const auto found = ready_.find(next_given_);
  if (found == ready_.end()) std::rethrow_exception(error_);  // after all that was read before it
  std::vector<Row> rows = std::move(found->second);
  ready_.erase(found);
  next_given_ += group_;
  changed_.notify_all();
  return rows;
}

}  // namespace tandem
