#pragma once
#include <chrono>
#include <string>

#include "comm/mesh.h"
#include "comm/process_group.h"

namespace tandem {

/// Where the ranks of one job met.
struct Mesh::Meeting {
  StorePointer store;   // under the prefix of this attempt and of a token of rank 0: of no other job
  std::string address;  // of this process, as other ranks reach it: where its groups listen
};

/// Opens the store, which rank 0 or the launcher serves, waits there until every rank has come, and compares what they were started with: all that came come to the same end of it.
/// Throws UserError (exit code 2) naming the rank with another world size or config (the odd one where they are three or more) or one that is there twice; PeerLost naming those
/// that did not come before `deadline`.
std::shared_ptr<Mesh::Meeting> meet(const Launch& launch, const MeshOptions& options, std::chrono::steady_clock::time_point deadline);

}  // namespace tandem
