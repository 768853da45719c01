#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "nn/parameter.h"

namespace tandem {

/// Whether a parameter is a table of a row a token or position, the head among them, or the norm
/// that belongs to RoBERTa's.
bool is_embedding(const std::string& parameter);

/// Parameters of a model.
struct ModelSize {
  int64_t total = 0, non_embedding = 0;
};
ModelSize model_size(const std::vector<ParameterInfo>& infos);

}  // namespace tandem
