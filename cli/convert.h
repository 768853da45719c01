#pragma once
#include <cstdint>
#include <optional>
#include <string>

#include "cli/portable_model.h"

namespace tandem {

/// Where a conversion reads and writes. `to` must not exist.
struct Conversion {
  std::string format = "yoco-official";  // of the files outside
  std::string from, to;
  std::string config = {};  // import: a training config whose sections are kept beside the weights; its model is replaced where the
                        // form says what it is, and else believed; empty = none
  torch::Dtype dtype = torch::kFloat32;  // export: of the weights written, float32, bfloat16 or float16
  std::optional<uint64_t> max_file_bytes = {};  // export: larger models are divided into files of at most so many bytes; forms of Hugging Face only
  bool verify = false;  // read what was written and compare every tensor, bit for bit, then logits
};

/// Files of another program into a checkpoint of step 0. Throws UserError.
void import_model(const Conversion& conversion);
/// A checkpoint (or the newest of a run) into files of another program. Throws UserError.
void export_model(const Conversion& conversion);

}  // namespace tandem
