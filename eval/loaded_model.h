#pragma once
#include <memory>
#include <string>

#include "core/config_node.h"
#include "data/tokenizer.h"
#include "nn/language_model.h"

namespace tandem {

/// A model ready for inference, with what it was trained with.
struct LoadedModel {
  std::shared_ptr<LanguageModel> model;
  std::unique_ptr<Tokenizer> tokenizer;  // null: not known (imported weights)
  ConfigNode config;       // of the run, whole
  std::string checkpoint;  // folder
  std::string manifest_hash;  // SHA-256 of its manifest, which has the checksums of all weights
  int64_t step = 0;
  int64_t context_length = 0;  // it was trained with; 0 = unknown (imported weights)
};

/// As its config names it; empty where there is none.
inline std::string family_of(const LoadedModel& loaded) {
  const ConfigNode* model = loaded.config.find("model");
  const ConfigNode* family = model ? model->find("family") : nullptr;
  return family ? family->scalar : "";
}

}  // namespace tandem
