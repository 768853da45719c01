#pragma once
#include <string>

#include "cli/portable_model.h"

namespace tandem {

// The form of the official YOCO code (microsoft/unilm, folder YOCO), of its YOCO models and of its Llama-like baseline: a folder with the model
// arguments in params.json (or config.json) and the weights in model.safetensors (or else every *.safetensors there), names with or without the
// prefix `decoder.model.` that its training writes.

/// Throws bad_file naming a tensor that is missing, unknown, misshapen, there twice or of another type than F32, F16 and BF16, or an argument that has no
/// counterpart here.
PortableModel read_yoco_official(const std::string& folder);

/// Makes `folder` with params.json and model.safetensors, of the type of the weights; nothing stays of it on an error. Tied embeddings are written as two tables. Throws UserError
/// naming what the form cannot express.
void write_yoco_official(const std::string& folder, const PortableModel& portable);

}  // namespace tandem
