#pragma once
#include <string>

#include "cli/yoco_official.h"

namespace tandem {

/// Where a conversion reads and writes. `to` must not exist.
struct Conversion {
  std::string format = "yoco-official";  // of the files outside
  std::string from, to;
  std::string config;   // import: a training config whose sections, but not its model, are kept beside the weights; empty = none
  bool verify = false;  // read what was written and compare every tensor, bit for bit
};

/// Files of another program into a checkpoint of step 0. Throws UserError.
void import_model(const Conversion& conversion);
/// A checkpoint (or the newest of a run) into files of another program. Throws UserError.
void export_model(const Conversion& conversion);

}  // namespace tandem
