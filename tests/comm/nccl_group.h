#pragma once
#include <memory>
#include <string>
#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include "comm/communicator.h"
#include "comm/process_group.h"

namespace tandem {

/// A group of one rank on NCCL, with a store of its own. Through the same code as one of many.
inline std::unique_ptr<Communicator> make_nccl_group(const std::string& name, at::Device device,
                                                     std::shared_ptr<Traffic> traffic = nullptr) {
  c10d::TCPStoreOptions options;
  options.port = 0;
  options.isServer = true;
  options.waitWorkers = false;
  const StorePointer store = c10::make_intrusive<c10d::TCPStore>("127.0.0.1", options);
  GroupSpec spec;
  spec.name = name;
  spec.limit_seconds = 60;
  const BackendPointer backend = make_nccl(store, spec);
  spec.device = device;
  spec.traffic = std::move(traffic);
  return make_group(spec, backend, nullptr);
}

}  // namespace tandem
