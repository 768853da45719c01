#include <sys/prctl.h>

#include <chrono>
#include <csignal>
#include <thread>
#include <utility>

#include "core/file.h"
#include "core/json_lines.h"
#include "tests/ledger/board.h"
#include "tests/ledger/ledger.h"

namespace tandem {
namespace {

using Entries = std::vector<LedgerEntry>;

Entries entries_of(const RowsView& rows) {
  Entries entries;
  const auto n = static_cast<size_t>(rows.length);
  for (int64_t r = 0; r < rows.rows; ++r) {
    const int64_t at = r * rows.length;
    const auto weights =
        rows.weights ? std::span<const float>(rows.weights + at, n) : std::span<const float>();
    entries.push_back({rows.samples[r], ledger_crc({rows.tokens + at, n}, {rows.targets + at, n},
                                                   {rows.segment + at, n}, weights)});
  }
  return entries;
}

/// Does `fault` to what the last rank read; at some steps only, so that it is one sample in many.
void break_entries(Entries& entries, LedgerFault fault, int64_t step) {
  if (step % 17 != 3) return;
  if (fault == LedgerFault::kSkip) entries.pop_back();
  if (fault == LedgerFault::kRepeat) entries.push_back(entries.back());
  if (fault == LedgerFault::kSwap) std::swap(entries[entries.size() - 2], entries.back());
}

nlohmann::ordered_json record_of(int64_t step, const Entries& entries) {
  nlohmann::ordered_json samples = nlohmann::ordered_json::array(), crcs = samples;
  for (const auto& [sample, crc] : entries) {
    samples.push_back(sample);
    crcs.push_back(crc);
  }
  return {{"step", step}, {"samples", samples}, {"crc32c", crcs}};
}

template <typename Condition>
void wait_until(Condition condition) {
  // std::atomic::wait wakes only within a process.
  while (!condition()) std::this_thread::sleep_for(std::chrono::microseconds(20));
}

}  // namespace

int64_t ledger_next_step(const LedgerPlan& plan) {
  if (!exists(plan.checkpoint())) return 0;
  return get_int(read_json(plan.checkpoint()), "next_step", 0, plan.steps);
}

void run_ledger_rank(const LedgerPlan& plan, int64_t attempt, int64_t rank, int64_t world) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);  // not to outlive the driver
  LedgerBoard board(plan.board());
  const auto sampler =
      std::make_shared<const Sampler>(ledger_sampler(plan, plan.configuration->shuffle));
  int64_t step = ledger_next_step(plan);
  if (plan.fault == LedgerFault::kLate && attempt > 0) ++step;
  Loader loader(sampler, [&, first = step](int64_t k) {
    return share_of(plan.step(first + k), rank, world);
  });
  JsonLinesWriter ledger(plan.part(attempt, rank));
  board[rank].phase = LedgerPhase::kWaiting;
  for (; step < plan.steps; ++step) {
    wait_until([&] { return board.limit() > step; });
    board[rank].phase = LedgerPhase::kReading;
    Entries entries = entries_of(loader.next()->view());
    if (rank == world - 1) break_entries(entries, plan.fault, step);
    if (plan.fault == LedgerFault::kDrift) {
      for (LedgerEntry& entry : entries) entry.crc ^= static_cast<uint32_t>(attempt);
    }
    ledger.write(record_of(step, entries));
    board[rank].done = step + 1;
    board[rank].phase = LedgerPhase::kWaiting;
    wait_until([&] { return board.done_by_all(world) > step; });  // as where gradients meet

    // The others go on meanwhile, to where they need rank 0 again.
    if (rank == 0 && ((step + 1) % kLedgerSaveEvery == 0 || step + 1 == plan.steps)) {
      board[rank].phase = LedgerPhase::kSaving;
      const nlohmann::ordered_json state = {{"next_step", step + 1}};
      write_atomically(plan.checkpoint(), state.dump() + "\n");
      board[rank].phase = LedgerPhase::kWaiting;
    }
  }
  wait_until([&] { return board.limit() > plan.steps; });
}

}  // namespace tandem
