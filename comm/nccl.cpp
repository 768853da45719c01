#include <cstdlib>

#include "comm/process_group.h"

#ifdef USE_C10D_NCCL
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>
#endif

namespace tandem {

#ifdef USE_C10D_NCCL
BackendPointer make_nccl(const StorePointer& store, const GroupSpec& spec) {
  // Its watchdog ends the process when an operation fails or times out, without waiting for the
  // communicators, which may hang: LibTorch's own default, said here as older ones differ.
  static const int set = ::setenv("TORCH_NCCL_ASYNC_ERROR_HANDLING", "3", /*overwrite=*/0);
  static_cast<void>(set);
  auto options = c10d::ProcessGroupNCCL::Options::create();
  options->timeout = std::chrono::milliseconds(static_cast<int64_t>(spec.limit_seconds * 1000));
  options->group_name = spec.name;
  return c10::make_intrusive<c10d::ProcessGroupNCCL>(store, static_cast<int>(spec.rank),
                                                     static_cast<int>(spec.size), options);
}
#else
BackendPointer make_nccl(const StorePointer&, const GroupSpec&) {
  throw bad_usage("GPUs of several ranks need a build with CUDA (preset cuda), as NCCL joins them");
}
#endif

}  // namespace tandem
