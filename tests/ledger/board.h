#pragma once
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <string>

#include "core/error.h"
#include "core/file.h"

namespace tandem {

/// What a rank is busy with.
enum class LedgerPhase : int32_t { kStarting, kReading, kWaiting, kSaving };

/// Where ranks and driver see how far each rank is: memory that all processes of an attempt share. Outlives a killed rank, so it also tells what the kill hit.
class LedgerBoard {
 public:
  static constexpr int64_t kMaxWorld = 4;
  struct Place {
    std::atomic<int64_t> done;  // steps
    std::atomic<LedgerPhase> phase;
  };

  /// An empty board for the next attempt, whose ranks begin with this step.
  static void make(const std::string& path, int64_t first_step) {
    File::create(path).truncate(sizeof(Shared));
    LedgerBoard board(path);
    for (Place& place : board.shared_->places) place.done = first_step;
  }
  explicit LedgerBoard(const std::string& path) {
    const int file = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
    void* memory = ::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    ::close(file);
    if (memory == MAP_FAILED) throw bad_file(path, "cannot be mapped");
    shared_ = static_cast<Shared*>(memory);
  }
  ~LedgerBoard() { ::munmap(shared_, sizeof(Shared)); }
  LedgerBoard(const LedgerBoard&) = delete;

  Place& operator[](int64_t rank) { return shared_->places[rank]; }
  /// Steps that all ranks have done.
  int64_t done_by_all(int64_t world) const {
    int64_t done = shared_->places[0].done;
    for (int64_t rank = 1; rank < world; ++rank) done = std::min(done, shared_->places[rank].done.load());
    return done;
  }
  bool any(LedgerPhase phase, int64_t world) const {
    return std::any_of(shared_->places, shared_->places + world, [&](const Place& place) { return place.phase == phase; });
  }
  /// Ranks wait before this step, and those that are through leave only when it lies behind the last: so a driver that gets no processor misses nothing.
  std::atomic<int64_t>& limit() { return shared_->limit; }

 private:
  struct Shared {
    Place places[kMaxWorld];
    std::atomic<int64_t> limit;
  };
  static_assert(std::atomic<int64_t>::is_always_lock_free && std::atomic<LedgerPhase>::is_always_lock_free);
  Shared* shared_;
};

}  // namespace tandem
