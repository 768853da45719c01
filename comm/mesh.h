#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>

#include "comm/communicator.h"
#include "comm/launch.h"

namespace tandem {

/// How the ranks of a run are divided. world = data * sequence * tensor; ranks that split tensors are neighbours, then those that split a sequence, then those of one
/// shard group. `replicate` copies of a sharded model stand beside each other (hybrid sharding): data * sequence = replicate * ranks of a shard group.
struct MeshShape {
  int64_t data = 1, sequence = 1, tensor = 1, replicate = 1;
  int64_t world() const { return data * sequence * tensor; }
  int64_t shard() const { return data * sequence / replicate; }
  std::string str() const;  ///< "data 4 (replicate 2, shard 2), tensor 2, sequence 1"
};

/// How long a collective may take before its peers count as lost.
struct TimeLimits {
  double setup_seconds = 300, step_seconds = 300, save_seconds = 1800;
};

/// The groups of ranks of one run. One process is a mesh of groups of one; no code asks whether it is distributed.
struct Mesh {
  MeshShape shape;
  std::unique_ptr<Communicator> data;      // ranks with different samples
  std::unique_ptr<Communicator> tensor;    // ranks that split heads and widths
  std::unique_ptr<Communicator> sequence;  // ranks that split one sequence
  std::unique_ptr<Communicator> gradient;  // data x sequence = replica x shard: ranks whose gradients are summed
  std::unique_ptr<Communicator> shard;     // ranks that divide optimizer, gradients or parameters among them
  std::unique_ptr<Communicator> replica;   // ranks that hold the same part of them
  std::unique_ptr<Communicator> world;
  std::unique_ptr<Communicator> control;   // all ranks; small messages on the host, also beside GPUs
  std::unique_ptr<Communicator> save;      // all ranks, on the host; used by the saving thread only
  std::shared_ptr<Traffic> traffic;        // of all of these

  Mesh() = default;
  Mesh(Mesh&&) = default;
  Mesh& operator=(Mesh&&) = default;
  ~Mesh();  ///< groups before the store; waits for nobody
  /// Of every later operation of the groups of the training thread: all but `save`.
  void set_time_limit(double seconds);
  /// All ranks are about to leave in good order: waits for them, so that nobody loses the store too early.
  void finish();

  struct Meeting;                   // the store that the ranks met in
  std::shared_ptr<Meeting> meeting; // nullptr on one process
};
/// Small strings that ranks leave for each other, before and beside any group. lookup waits, and throws PeerLost after `seconds`.
void publish(Mesh::Meeting& meeting, const std::string& key, const std::string& value);
std::string lookup(Mesh::Meeting& meeting, const std::string& key, double seconds);

Mesh single_process_mesh();
/// One such mesh for whoever was given none.
Mesh& this_process();

struct MeshOptions {
  TimeLimits limits;
  bool checked = false;  // compare the fingerprint of every operation before data moves
  std::string fingerprint;  // of what must be the same on all ranks, such as the config
  bool cuda = false;     // data, tensor, sequence, gradient, shard, replica and world on NCCL, on this process's current device; else Gloo
};
/// Connects all ranks of `launch` (every rank calls it) and makes the groups; each was used once when this returns. A world of one gives single_process_mesh(). Throws UserError (exit code 2) where shape.world()
/// is not launch.world or replicate does not divide, PeerLost where a rank does not come within limits.setup_seconds, naming those that did not.
Mesh make_mesh(const Launch& launch, const MeshShape& shape, const MeshOptions& options);

}  // namespace tandem
