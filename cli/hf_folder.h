#pragma once
#include <string>

#include "cli/hf_form.h"
#include "cli/model_source.h"

namespace tandem {

/// Opens a folder of `form`: config.json (and generation_config.json) and the weights, of which
/// only headers are read until a weight is asked for. Buffers that nothing reads are left out and
/// listed on the log. Throws bad_file naming the option, tensor or file that has no counterpart
/// here.
ModelSource open_hf_folder(const HfForm& form, const std::string& folder);

struct HfWriteOptions {
  torch::Dtype dtype = torch::kFloat32;
  uint64_t max_file_bytes = 5'000'000'000;
};
/// Makes `folder` whole or not at all: config.json, generation_config.json, weights of `dtype`, and
/// the tokenizer's files where the model has one that the libraries read (tokenizer.json,
/// tokenizer.model). Holds one tensor at a time. Throws UserError naming what the form cannot
/// express.
void write_hf_folder(const HfForm& form, const std::string& folder, const ModelSource& source,
                     const HfWriteOptions& options);

}  // namespace tandem
