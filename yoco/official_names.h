#pragma once
#include <nlohmann/json.hpp>
#include <string>

#include "nn/official_params.h"
#include "yoco/yoco.h"

namespace tandem {

// YOCO as the official code (microsoft/unilm, folder YOCO) keeps it: model arguments in params.json and a dictionary of weights with other names.

/// "self_decoder.layers.0.ffn.gate_proj.weight" -> "self_decoder.layers.0.ffn.fc1.weight".
std::string official_yoco_name(const std::string& ours);

/// Throws std::runtime_error where `params` has no counterpart here.
YocoConfig yoco_of_official(OfficialParams& params);
/// Throws UserError naming what the official form cannot express. Tied embeddings can be: both tables are written.
nlohmann::ordered_json official_params_of(const YocoConfig& config);

}  // namespace tandem
