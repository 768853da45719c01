#pragma once
#include <string>

#include "cli/portable_model.h"

namespace tandem {

// The form of the official Block Transformer code, of its Block Transformers and its GPT-NeoX baselines: a folder with
// model.safetensors. The form keeps no architecture: it is taken from `config` (the model section of a training config), or
// from FOLDER/config.yaml, which export writes. Buffers that older files hold are no weights.

/// Throws bad_file naming a tensor that is missing, unknown, misshapen or of another type than F32, F16 and BF16, or a copy that
/// differs, and where no config says what the weights are; bad_usage naming what the form has not. Dead tensors are kept under
/// kUnusedPrefix + their name.
PortableModel read_block_transformer_official(const std::string& folder, const ConfigNode* config);

/// Makes `folder` with config.yaml and model.safetensors, of the type of the weights; nothing stays of it on an error. Dead
/// tensors that were not kept are zero. Throws bad_usage naming what the form has not.
void write_block_transformer_official(const std::string& folder, const PortableModel& portable);

}  // namespace tandem
