#pragma once
#include <memory>
#include <string>

#include "core/config_node.h"
#include "data/tokenizer.h"
#include "eval/loaded_model.h"
#include "nn/language_model.h"

namespace tandem {

/// `path`: a checkpoint or a run folder. Devices "auto", "cpu", "cuda", "cuda:1"; dtypes "float32",
/// "bfloat16", "float64".
LoadedModel load_model(const std::string& path, torch::Device device, torch::Dtype dtype);

/// The model of a training config with random weights, for measurements; its checkpoint is empty.
/// The tokenizer's file is needed only where the config gives no vocab_size; without it the byte
/// tokenizer stands in.
LoadedModel random_model(const std::string& config_path, uint64_t seed, torch::Device device,
                         torch::Dtype dtype);

/// What either of them would give, its weights without storage: for costs alone.
LoadedModel describe_model(const std::string& path);

/// Whether `path` is that of a config, not of a checkpoint.
bool is_config(const std::string& path);

/// Throw bad_usage for unknown words; "auto" is the first GPU when there is one.
torch::Device parse_device(const std::string& word);
torch::Dtype parse_dtype(const std::string& word);

}  // namespace tandem
