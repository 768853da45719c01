#include "train/model_size.h"

namespace tandem {

bool is_embedding(const std::string& parameter) {
  const std::string module = parameter.substr(0, parameter.rfind('.'));
  const std::string last = module.substr(module.rfind('.') + 1);
  return last.ends_with("embedding") || last == "head" || module == "embedder.norm";
}

ModelSize model_size(const std::vector<ParameterInfo>& infos) {
  ModelSize size;
  for (const auto& info : infos) {
    size.total += info.numel();
    if (!is_embedding(info.name)) size.non_embedding += info.numel();
  }
  return size;
}

}  // namespace tandem
