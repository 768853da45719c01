#pragma once
#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace tandem {

/// Shows how far long work has come on standard error: a bar that redraws itself on a terminal, else a plain line every
/// 10 seconds. Erased or ended by finish() or the destructor, so that later lines start clean.
class Progress {
 public:
  /// `total` units of work named `unit` ("steps", "tokens"); 0 = unknown. `done` where a resumed run starts.
  Progress(std::string label, int64_t total, std::string unit, int64_t done = 0);
  ~Progress();
  /// Sets the units done and a short note shown behind the bar ("loss 3.21").
  void update(int64_t done, std::string_view note = "");
  /// Clears the bar so that a log line can be printed; the next update draws it again.
  void clear();
  void finish();

 private:
  void draw(bool last);
  std::string label_, unit_, note_;
  int64_t total_, start_, done_;
  bool terminal_, drawn_ = false, finished_ = false;
  std::chrono::steady_clock::time_point begin_, last_draw_;
};

}  // namespace tandem
