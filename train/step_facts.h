#pragma once
#include <cstdint>
#include <string>

#include "comm/communicator.h"

namespace tandem {

/// What every rank must have come to by the end of a step, and what one of them may know alone.
struct StepFacts {
  int64_t step = 0, next_sample = 0;
  double loss = 0, grad_norm = 0;  // compared to the bit
  int64_t skipped = 0;
  int signal = 0;  // that this rank received; 0 = none
};

/// One small message each: returns the signal that any rank received, 0 for none (the highest where they differ). Throws PeerLost on all ranks, naming those whose step, samples, loss, norm or
/// skips are not the majority's: their memory or their program is another one.
int agree_on(Communicator& control, const StepFacts& mine);
/// The same without facts, between steps.
int agree_on_signal(Communicator& control, int signal);

}  // namespace tandem
