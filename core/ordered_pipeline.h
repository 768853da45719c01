#pragma once
#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <thread>
#include <utility>
#include <vector>

namespace tandem {

/// One thread makes pieces of work, several do them, and the caller takes the results in the order in which the work was made.
template <typename Work, typename Result>
class OrderedPipeline {
 public:
  struct Stages {
    std::function<bool(Work&)> make;           // on a thread of its own; false at the end
    std::function<Result(const Work&)> apply;  // on several threads at once
    std::function<size_t(const Work&)> bytes;  // of memory that a piece stands for
  };
  /// Makes work ahead as long as pieces not yet taken stand for at most `most_bytes`, or there is but one.
  OrderedPipeline(Stages stages, int64_t threads, size_t most_bytes) : stages_(std::move(stages)), most_bytes_(most_bytes) {
    threads_.emplace_back([this](std::stop_token stop) { make_all(stop); });
    for (int64_t i = 0; i < threads; ++i) threads_.emplace_back([this](std::stop_token stop) { apply_all(stop); });
  }
  OrderedPipeline(const OrderedPipeline&) = delete;
  ~OrderedPipeline() {  // waits for the pieces that are being worked on; the others are dropped
    for (auto& thread : threads_) thread.request_stop();
  }

  /// Waits at most so long. True when next() need not wait any more.
  bool ready_within(std::chrono::milliseconds most) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, most, [&] { return ready(); });
  }

  /// The next result; nothing at the end. Rethrows what a stage threw, in the place of that piece; after it there is no more.
  std::optional<Result> next() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return ready(); });
    if (ordered_.empty()) return std::nullopt;
    const std::shared_ptr<Piece> piece = std::move(ordered_.front());
    ordered_.pop_front();
    bytes_ -= piece->bytes;
    changed_.notify_all();
    if (piece->error) {
      failed_ = ended_ = true;  // wakes all threads to their end
      ordered_.clear();
      waiting_.clear();
      std::rethrow_exception(piece->error);
    }
    return std::move(piece->result);
  }

 private:
  struct Piece {
    Work work{};
    size_t bytes = 0;
    bool done = false;
    std::optional<Result> result;
    std::exception_ptr error;
  };

  bool ready() const { return ordered_.empty() ? ended_ : ordered_.front()->done; }

  void make_all(const std::stop_token& stop) {
    for (bool more = true; more;) {
      const auto piece = std::make_shared<Piece>();
      try {
        more = stages_.make(piece->work);
        if (more) piece->bytes = stages_.bytes(piece->work);
      } catch (...) {
        piece->error = std::current_exception();
        piece->done = true;
        more = false;
      }
      std::unique_lock lock(mutex_);
      const auto fits = [&] { return failed_ || bytes_ == 0 || bytes_ + piece->bytes <= most_bytes_; };
      if (!changed_.wait(lock, stop, fits) || failed_) return;
      bytes_ += piece->bytes;
      if (more || piece->error) ordered_.push_back(piece);
      if (more) waiting_.push_back(piece);
      ended_ = !more;
      changed_.notify_all();
    }
  }

  void apply_all(const std::stop_token& stop) {
    while (true) {
      std::shared_ptr<Piece> piece;
      {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, stop, [&] { return !waiting_.empty() || ended_; });
        if (stop.stop_requested() || waiting_.empty()) return;
        piece = std::move(waiting_.front());
        waiting_.pop_front();
      }
      try {
        piece->result.emplace(stages_.apply(piece->work));
      } catch (...) {
        piece->error = std::current_exception();
      }
      piece->work = {};
      const std::lock_guard lock(mutex_);
      piece->done = true;
      changed_.notify_all();
    }
  }

  Stages stages_;
  size_t most_bytes_;
  std::mutex mutex_;  // of all below
  std::condition_variable_any changed_;
  std::deque<std::shared_ptr<Piece>> ordered_;  // made and not yet taken
  std::deque<std::shared_ptr<Piece>> waiting_;  // those that no thread has begun
  size_t bytes_ = 0;                            // of ordered_
  bool ended_ = false;                          // nothing more is made
  bool failed_ = false;                         // an error was given out: what is still made is dropped
  std::vector<std::jthread> threads_;           // ended first
};

}  // namespace tandem
