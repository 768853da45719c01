#pragma once

namespace tandem {

/// While it lives, the first SIGTERM or SIGINT only sets a flag and a second one ends the process
/// at once with 128 + its number. SIGPIPE and SIGXFSZ are ignored, so that a write they would kill
/// the process for fails with an error instead. One at a time.
class StopSignal {
 public:
  StopSignal();
  ~StopSignal();
  StopSignal(const StopSignal&) = delete;
  StopSignal& operator=(const StopSignal&) = delete;
  int received() const;  ///< the first signal's number, 0 = none
};

}  // namespace tandem
