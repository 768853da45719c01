#pragma once
#include <nlohmann/json.hpp>
#include <string>

#include "nn/official_params.h"
#include "nn/transformer.h"

namespace tandem {

// The Llama-like baseline of the official YOCO code (microsoft/unilm, folder YOCO): rotary positions in halves with standard exponents, embeddings
// neither scaled nor tied.

/// "layers.0.mixer.q_proj.weight" -> "layers.0.attention.wq.weight".
std::string official_transformer_name(const std::string& ours);

/// Throws std::runtime_error where `params` has no counterpart here.
TransformerConfig transformer_of_official(OfficialParams& params);
/// Throws UserError naming what the official form cannot express. Tied embeddings can be: both tables are written.
nlohmann::ordered_json official_params_of(const TransformerConfig& config);

}  // namespace tandem
