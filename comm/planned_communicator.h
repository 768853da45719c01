#pragma once
#include <memory>
#include <string>

#include "comm/communicator.h"

namespace tandem {

/// Rank 0 of a group that is only planned: it says its size, and every operation throws c10::Error.
std::unique_ptr<Communicator> make_planned_communicator(std::string name, int64_t size);

}  // namespace tandem
