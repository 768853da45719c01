#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <unordered_map>
#include <vector>

#include "data/byte_bpe.h"

namespace tandem {

/// "model" of a tokenizer.json: a byte-level BPE.
struct HfModel {
  std::unordered_map<std::string, int32_t> ids;  // of the vocabulary, as it is spelled there
  std::vector<std::string> bytes;                // of each id; empty for a token that is not spelled in byte-level characters
  std::vector<ByteBpe::Merge> merges;
  bool ignore_merges = false;
};
/// Throws std::runtime_error (data/hf_json.h) for another kind of model and for damage.
HfModel read_hf_model(const nlohmann::ordered_json& json);

}  // namespace tandem
