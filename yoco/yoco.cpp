#include "yoco/yoco.h"

#include <cmath>

#include "nn/stack_language_model.h"

namespace tandem {

std::shared_ptr<LanguageModel> make_yoco(const YocoConfig& config) {
  const int64_t n_layers = config.self_decoder.n_layers + config.cross_decoder.n_layers;
  const TokenEnds ends =
      token_ends(config, n_layers, 1 / std::sqrt(static_cast<double>(config.d_model)));
  return std::make_shared<StackLanguageModel>(std::make_shared<YocoStack>(config), ends);
}

}  // namespace tandem
