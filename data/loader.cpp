#include "data/loader.h"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <utility>

namespace tandem {

SampleRange share_of(SampleRange step, int64_t rank, int64_t world) {
  if (step.n < 0 || world < 1 || rank < 0 || rank >= world) {
    throw std::logic_error("share_of: rank " + std::to_string(rank) + " of " +
                           std::to_string(world) + ", " + std::to_string(step.n) + " rows");
  }
  const int64_t begin = rank * step.n / world, end = (rank + 1) * step.n / world;
  return {step.first + begin, end - begin};
}

int64_t groups_ahead(int64_t rows, int64_t length) {
  constexpr int64_t kBytes = int64_t{16} << 20;
  constexpr int64_t kTokenBytes = 20;  // token, target and segment
  return std::clamp<int64_t>(kBytes / std::max<int64_t>(1, rows * length * kTokenBytes), 4, 64);
}

Loader::Loader(std::shared_ptr<const Sampler> sampler, Groups groups, int64_t ahead,
               MakeRowsMemory make_memory)
    : sampler_(std::move(sampler)),
      groups_(std::move(groups)),
      ahead_(ahead),
      make_memory_(std::move(make_memory)) {
  if (!sampler_ || !groups_ || !make_memory_ || ahead < 1) {
    throw std::logic_error("Loader: ahead = " + std::to_string(ahead) +
                           ", expected a sampler, groups, memory, ahead >= 1");
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

/// Up to two more, so that they get ahead of the reading, but the first is not kept waiting until
/// all are asked for.
void Loader::ask_for_groups() {
  for (int i = 0; i < 2 && static_cast<int64_t>(asked_.size()) <= ahead_; ++i) {
    if (!asked_.empty() && asked_.back().n < 1) return;  // the end
    const SampleRange group = groups_(next_asked_++);
    for (int64_t r = 0; r < group.n; ++r) sampler_->will_fill(group.first + r);
    asked_.push_back(group);
  }
}

std::unique_ptr<RowsMemory> Loader::read_group(SampleRange group) const {
  auto memory = make_memory_(group.n, sampler_->context_length(), sampler_->weighted());
  for (int64_t r = 0; r < group.n; ++r) sampler_->fill(group.first + r, memory->view(), r);
  return memory;
}

void Loader::read_ahead() {
  std::unique_lock lock(mutex_);
  for (int64_t k = 0;; ++k) {
    changed_.wait(lock, [&] { return stop_ || static_cast<int64_t>(ready_.size()) < ahead_; });
    if (stop_) return;
    lock.unlock();
    std::unique_ptr<RowsMemory> rows;
    std::exception_ptr error;
    try {
      ask_for_groups();
      const SampleRange group = asked_.front();
      asked_.pop_front();
      if (group.n < 0) {
        throw std::logic_error("Loader: group " + std::to_string(k) + " has " +
                               std::to_string(group.n) + " rows, expected at least 0");
      }
      if (group.n > 0) rows = read_group(group);
    } catch (...) {
      error = std::current_exception();
    }
    lock.lock();
    error_ = error;
    ended_ = !rows;
    if (rows) ready_.push_back(std::move(rows));
    changed_.notify_all();
    if (ended_) return;
  }
}

std::unique_ptr<RowsMemory> Loader::next() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return ended_ || !ready_.empty(); });
  if (ready_.empty()) {  // after all that was read before it
    if (error_) std::rethrow_exception(error_);
    throw std::logic_error("Loader::next: there is no group behind the last one");
  }
  auto rows = std::move(ready_.front());
  ready_.pop_front();
  changed_.notify_all();
  return rows;
}

}  // namespace tandem
