#include <algorithm>
#include <chrono>
#include <csignal>
#include <deque>
#include <map>
#include <optional>
#include <stdexcept>
#include <thread>

#include "core/file.h"
#include "core/random.h"
#include "tests/ledger/board.h"
#include "tests/ledger/ledger.h"
#include "tests/process.h"

namespace tandem {
namespace {

using Clock = std::chrono::steady_clock;
constexpr double kLongestSeconds = 120;  // until ranks have come to where the driver waits for them

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

void sleep_for(double seconds) {
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
}

class Driver {
 public:
  Driver(const LedgerPlan& plan, int64_t kills, LedgerReport& report)
      : plan_(plan),
        kills_(kills),
        report_(report),
        stream_(RandomStream(plan.seed).fork("ledger kills")) {
    make_directories(plan_.run);
  }

  std::vector<LedgerAttempt> work() {
    for (int64_t kill = 0; kill < kills_; ++kill) {
      start();
      wait_for_a_moment(kills_ - kill);
      end_with(SIGKILL);
      write_down_what_was_hit();
    }
    start();
    board_->limit() = plan_.steps + 1;
    end_with(0);
    report_.facts["kills"] = kills_;
    report_.facts["inside_a_step"] = inside_a_step_;
    report_.facts["inside_a_save"] = inside_a_save_;
    report_.facts["while_starting"] = while_starting_;
    report_.facts["steps_by_world"] = steps_by_world();
    return attempts_;
  }

 private:
  LedgerAttempt& now() { return attempts_.back(); }

  void start() {
    const size_t number = attempts_.size();
    attempts_.push_back({.world = kLedgerWorlds[number % std::size(kLedgerWorlds)],
                         .first_step = ledger_next_step(plan_)});
    LedgerBoard::make(plan_.board(), now().first_step);
    board_.emplace(plan_.board());
    for (int64_t rank = 0; rank < now().world; ++rank) {
      ranks_.emplace_back(
          std::vector<std::string>{
              "/proc/self/exe",  "rank",
              "--configuration", plan_.configuration->name,
              "--data",          plan_.data,
              "--run",           plan_.run,
              "--seed",          std::to_string(plan_.seed),
              "--steps",         std::to_string(plan_.steps),
              "--break",         kLedgerFaults[static_cast<size_t>(plan_.fault)],
              "--attempt",       std::to_string(number),
              "--rank",          std::to_string(rank),
              "--world",         std::to_string(now().world)},
          stderr_path(rank));
    }
    started_ = Clock::now();
  }

  /// Some moment while ranks start, inside a step or inside a save, such that the kills to come are
  /// spread over the steps to come.
  void wait_for_a_moment(int64_t kills_left) {
    const int64_t steps_left = plan_.steps - now().first_step;
    const auto most = static_cast<uint64_t>(2 * steps_left / (kills_left + 1));
    const int64_t target = now().first_step + static_cast<int64_t>(draw(most + 1));
    const int64_t limit = std::min(plan_.steps, target + kLedgerSaveEvery + 1);  // a save later
    board_->limit() = limit;
    const uint64_t what = draw(8);
    if (what == 0) {
      sleep_for(starting_seconds_ * uniform());
      return;
    }
    wait_until([&] { return !board_->any(LedgerPhase::kStarting, now().world); });
    starting_seconds_ = seconds_since(started_);
    const auto done = [&] { return board_->done_by_all(now().world); };
    wait_until([&] { return done() >= target; });
    const auto phase = what % 2 == 0 ? LedgerPhase::kSaving : LedgerPhase::kReading;
    wait_until([&] { return board_->any(phase, now().world) || done() == limit; });
    if (draw(2) == 0) sleep_for(0.0003 * uniform());  // and then somewhere in it
  }

  /// Kills the ranks, or with 0 waits for their end.
  void end_with(int signal) {
    if (signal != 0) {
      for (const Process& rank : ranks_) rank.send(signal);
    }
    const int expected = signal == 0 ? 0 : 128 + signal;
    for (int64_t rank = 0; rank < now().world; ++rank) {
      const int code = ranks_[static_cast<size_t>(rank)].wait();
      if (code != expected) throw failed(rank, code);
    }
    ranks_.clear();
  }

  void write_down_what_was_hit() {
    inside_a_step_ += board_->any(LedgerPhase::kReading, now().world);
    inside_a_save_ += board_->any(LedgerPhase::kSaving, now().world);
    while_starting_ += board_->any(LedgerPhase::kStarting, now().world);
  }

  /// Steps that checkpoints took in, by the world they were read in.
  std::map<std::string, int64_t> steps_by_world() const {
    std::map<std::string, int64_t> steps;
    for (size_t a = 0; a < attempts_.size(); ++a) {
      const int64_t end = a + 1 < attempts_.size() ? attempts_[a + 1].first_step : plan_.steps;
      steps[std::to_string(attempts_[a].world)] += end - attempts_[a].first_step;
    }
    return steps;
  }

  template <typename Condition>
  void wait_until(Condition condition) {
    for (const auto begin = Clock::now(); !condition(); sleep_for(0.00001)) {
      for (int64_t rank = 0; rank < now().world; ++rank) {
        if (const auto code = ranks_[static_cast<size_t>(rank)].ended()) throw failed(rank, *code);
      }
      if (seconds_since(begin) > kLongestSeconds) throw std::runtime_error(where() + " hangs");
    }
  }

  std::string where() const {
    return plan_.run + ": attempt " + std::to_string(attempts_.size() - 1);
  }
  std::string stderr_path(int64_t rank) const {
    return plan_.run + "/rank-" + std::to_string(rank) + ".stderr";
  }
  std::runtime_error failed(int64_t rank, int code) const {
    return std::runtime_error(where() + ", rank " + std::to_string(rank) + " ended with " +
                              std::to_string(code) + "\n" + read_text(stderr_path(rank)));
  }
  uint64_t draw(uint64_t n) { return stream_.below(draws_++, n); }
  double uniform() { return stream_.uniform(draws_++); }

  const LedgerPlan& plan_;
  const int64_t kills_;
  LedgerReport& report_;
  RandomStream stream_;
  uint64_t draws_ = 0;
  std::vector<LedgerAttempt> attempts_;
  std::optional<LedgerBoard> board_;
  std::deque<Process> ranks_;
  Clock::time_point started_;
  double starting_seconds_ = 0.02;  // of an attempt before; a guess for the first
  int64_t inside_a_step_ = 0, inside_a_save_ = 0, while_starting_ = 0;
};

}  // namespace

std::vector<LedgerAttempt> drive_ledger(const LedgerPlan& plan, int64_t kills,
                                        LedgerReport& report) {
  return Driver(plan, kills, report).work();
}

}  // namespace tandem
