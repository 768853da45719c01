#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace tandem {

/// A model as whoever must serve it sees it.
struct ParetoPoint {
  std::string run, group;
  int64_t batch = 0;                 // that was measured; 0: training
  double loss = 0;                   // less is better
  double tokens_per_second = 0;      // more
  double bytes_per_row = 0;          // less
  bool on_throughput_front = false;  // none is as good in loss and throughput and better in one
  bool on_memory_front = false;      // the same of loss and memory
  bool on_front = false;             // of all three
};

void mark_fronts(std::span<ParetoPoint> points);

}  // namespace tandem
