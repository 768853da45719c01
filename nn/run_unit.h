#pragma once
#include "nn/parameter.h"

namespace tandem {

/// A module that run_layer() runs: where parameters are sharded, its weights are gathered and freed together.
class RunUnit : public Module {};

}  // namespace tandem
