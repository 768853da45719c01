#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>

#include "comm/communicator.h"

// Groups of ranks on LibTorch's c10d. Only the files of this folder's process groups include it.

namespace c10d {
class Backend;
class Store;
}  // namespace c10d

namespace tandem {

/// What a group needs to know of itself.
struct GroupSpec {
  std::string name;             // for messages, and the prefix of its keys in the store
  int64_t rank = 0, size = 1;   // of this process in the group
  double limit_seconds = 300;   // of one operation
  bool checked = false;         // compare what ranks are about to do before any data moves
  at::Device device = at::kCPU;
  std::shared_ptr<Traffic> traffic;
};

using StorePointer = c10::intrusive_ptr<c10d::Store>;
using BackendPointer = c10::intrusive_ptr<c10d::Backend>;

/// Connects to the other ranks of the group over TCP, for tensors on the host. `address`: where this process listens.
BackendPointer make_gloo(const StorePointer& store, const GroupSpec& spec, const std::string& address);
/// For tensors on this process's current GPU. Throws UserError (exit code 2) in a build without CUDA.
BackendPointer make_nccl(const StorePointer& store, const GroupSpec& spec);
/// The Communicator of either. `host` is a Gloo group of the same ranks, for the fingerprints of checked mode; may be `backend`.
/// Its destructor waits for operations under way on Gloo; on NCCL it gives them up, where shut_down() was not called.
std::unique_ptr<Communicator> make_group(GroupSpec spec, BackendPointer backend, BackendPointer host);
/// Of a group whose every operation is done, on all its ranks and in the same order of groups. Nothing for groups of one.
void shut_down(Communicator& group);

}  // namespace tandem
