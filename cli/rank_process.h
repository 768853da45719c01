#pragma once
#include <CLI/CLI.hpp>
#include <functional>
#include <memory>
#include <optional>

#include "comm/launch.h"
#include "comm/liveness.h"
#include "comm/mesh.h"
#include "train/train_config.h"

namespace tandem {

/// This process as one of the ranks that work together: its groups, and the watch over the others.
class RankProcess {
 public:
  /// Meets the other ranks in a mesh of `shape`; all must be about to do the same `work` (a config, a command; any text). Ranks other than the first log to nobody from here on. Throws
  /// UserError, PeerLost.
  RankProcess(const Launch& launch, const MeshShape& shape, const CommunicationConfig& communication, const std::string& work, torch::Device device);

  Mesh& mesh() { return mesh_; }
  /// What this rank is doing, for the others' message should it be lost.
  void report(int64_t step, const char* operation) { liveness_->report(step, operation); }
  /// Calls `act`, which gives the exit code, and leaves in good order. Where `act` throws the others are told, and leave too; where it throws PeerLost this does not return: the process leaves
  /// with 75 and a line that names the rank that was lost.
  int run(const std::function<int()>& act);

 private:
  Mesh mesh_;
  std::optional<Liveness> liveness_;
};

/// --rank, --world, --local-rank, --address, --port.
void add_launch_options(CLI::App& app, LaunchFlags& flags);

/// The device of this rank: `word` as --device has it; auto and cuda are the GPU of its local rank, or the only one where Slurm shows each task its own. Makes it the current one. Throws UserError where ranks of this machine are more than its GPUs.
torch::Device device_of_rank(const std::string& word, const Launch& launch);

}  // namespace tandem
