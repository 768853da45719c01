#pragma once
#include <memory>

#include "comm/communicator.h"

namespace tandem {

/// The groups of ranks of one run. One process is a mesh of groups of one; no code asks whether it is distributed.
struct Mesh {
  std::unique_ptr<Communicator> data;      // ranks with different samples
  std::unique_ptr<Communicator> tensor;    // ranks that split heads and widths
  std::unique_ptr<Communicator> sequence;  // ranks that split one sequence
  std::unique_ptr<Communicator> gradient;  // data x sequence: ranks whose gradients are summed
  std::unique_ptr<Communicator> world;
  std::unique_ptr<Communicator> control;   // small messages on the host, also beside GPUs
  std::unique_ptr<Communicator> save;      // used by the saving thread only
};

Mesh single_process_mesh();

}  // namespace tandem
