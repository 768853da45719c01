#include "train/async_save.h"

#include <algorithm>
#include <bit>
#include <chrono>
#include <utility>

#include "comm/agreement.h"
#include "core/error.h"
#include "core/log.h"
#include "core/signals_blocked.h"

namespace tandem {
namespace {

/// A plain loop rather than a reduction of LibTorch, which would start a second set of threads
/// beside those of the training.
bool all_finite(const Tensor& tensor) {
  const Tensor whole = tensor.contiguous();
  const auto* values = whole.const_data_ptr<float>();
  constexpr uint32_t kExponent = 0x7f800000;  // all ones in NaN and infinity only
  uint32_t highest = 0;
  for (int64_t i = 0; i < whole.numel(); ++i)
    highest = std::max(highest, std::bit_cast<uint32_t>(values[i]) & kExponent);
  return highest != kExponent;
}

SaveReport write(RunDir& dir, const CheckpointContents& contents, const CheckpointConfig& config,
                 std::optional<int64_t> protect) {
  const auto begin = std::chrono::steady_clock::now();
  on_all_ranks(dir.save_group(), [&] {
    const std::string name = first_not_finite(contents);
    if (name.empty()) return;
    throw UserError(kExitStopped, "step " + std::to_string(contents.step) + ": " + name +
                                      " holds a number that is not finite; no checkpoint of it "
                                      "was written");
  });
  SaveReport report;
  report.step = contents.step;
  report.folder = dir.save(contents, config, protect);
  report.write_seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return report;
}

}  // namespace

Saver::Saver(RunDir& dir, bool async) : dir_(dir), async_(async) {
  if (!async_) return;
  const SignalsBlocked signals;  // SIGTERM and SIGINT are the main thread's
  thread_ = std::thread([this] { work(); });
}

Saver::~Saver() {
  if (thread_.joinable()) {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }
  try {
    if (error_) std::rethrow_exception(error_);
  } catch (const std::exception& error) {
    log_warning(error.what());
  }
}

void Saver::save(CheckpointContents contents, const CheckpointConfig& config,
                 std::optional<int64_t> protect) {
  if (!async_) {
    report_ = write(dir_, contents, config, protect);
    return;
  }
  wait();
  unsettled_ = true;
  {
    const std::lock_guard lock(mutex_);
    task_ = {std::move(contents), config, protect};
  }
  changed_.notify_all();
}

void Saver::wait() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return !task_; });
  unsettled_ = false;
  if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
}

bool Saver::busy() const {
  const std::lock_guard lock(mutex_);
  return task_.has_value();
}

bool Saver::busy_anywhere() {
  if (!unsettled_) return false;
  at::Tensor any = at::full({1}, busy() ? 1 : 0, at::kLong);
  dir_.control_group().all_reduce(any, Reduction::kMax)->wait();
  unsettled_ = *any.const_data_ptr<int64_t>() != 0;
  return unsettled_;
}

std::optional<SaveReport> Saver::take_report() {
  const std::lock_guard lock(mutex_);
  return std::exchange(report_, std::nullopt);
}

/// What the thread does: one task after the other, and the last one before it ends.
void Saver::work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return task_ || stop_; });
    if (!task_) return;
    lock.unlock();  // until task_ is reset nobody else touches it
    std::optional<SaveReport> report;
    std::exception_ptr error;
    try {
      report = write(dir_, task_->contents, task_->config, task_->protect);
    } catch (...) {
      error = std::current_exception();
    }
    lock.lock();
    if (report) report_ = std::move(report);
    error_ = error;
    task_.reset();
    changed_.notify_all();
  }
}

std::string first_not_finite(const CheckpointContents& contents) {
  for (const auto* pieces : {&contents.weights, &contents.optimizer}) {
    for (const auto& piece : *pieces) {
      if (!all_finite(piece.data)) return piece.name;
    }
  }
  return "";
}

}  // namespace tandem
