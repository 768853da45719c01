// The one file that sees Gloo's headers. They are Debian's, the code is LibTorch's: only layouts that both share are used, and the build checks that this object
// defines nothing of Gloo's.
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>

#include "comm/process_group.h"

namespace tandem {

BackendPointer make_gloo(const StorePointer& store, const GroupSpec& spec,
                         const std::string& address) {
  auto options = c10d::ProcessGroupGloo::Options::create(
      std::chrono::milliseconds(static_cast<int64_t>(spec.limit_seconds * 1000)));
  options->devices.push_back(
      c10d::ProcessGroupGloo::createDeviceForHostname(address, /*lazyInit=*/false));
  options->threads = 1;  // operations of a group follow each other
  return c10::make_intrusive<c10d::ProcessGroupGloo>(
      store, static_cast<int>(spec.rank), static_cast<int>(spec.size), options);
}

}  // namespace tandem
