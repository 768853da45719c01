#pragma once
#include "train/train_step.h"

namespace tandem {

/// Compares checksums of what several ranks should hold alike: masters and moments over mesh.replica, and those of parameters that tensor parallelism leaves whole over mesh.tensor.
/// Throws PeerLost on all ranks of the mesh, naming the odd one (of three or more) and the first parameter that differs: the launcher then starts again from the last checkpoint.
void compare_replicas(const Run& run);

}  // namespace tandem
