#pragma once
#include <string>
#include <utility>
#include <vector>

#include "core/config.h"
#include "nn/parameter.h"

namespace tandem {

/// A model outside of a checkpoint: family and config, and all weights under our names, those under kUnusedPrefix with them;
/// float32 on the CPU, or bfloat16 where they are to be written so.
struct PortableModel {
  Choice model;
  std::vector<std::pair<std::string, Tensor>> weights;
};

}  // namespace tandem
