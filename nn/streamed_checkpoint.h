#pragma once
#include <functional>
#include <string>

#include "nn/checkpoint.h"

namespace tandem {

/// Gives one weight as float32 on the CPU.
using ReadWeight = std::function<Tensor(const std::string& name)>;

/// write_checkpoint() of one process for models that need not fit into memory: the pieces of
/// contents.weights are whole weights without data, and each is asked for as it is written. At most
/// one is held.
void write_streamed_checkpoint(const std::string& folder, const CheckpointContents& contents,
                               const ReadWeight& read_weight);

}  // namespace tandem
