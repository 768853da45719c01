#include "yoco/hybrid.h"

#include <cmath>

#include "nn/layer_stack.h"
#include "nn/stack_language_model.h"

namespace tandem {

std::shared_ptr<LanguageModel> make_hybrid(const HybridConfig& config) {
  const TokenEnds ends =
      token_ends(config, config.n_layers, 1 / std::sqrt(static_cast<double>(config.d_model)));
  const MixerSpec spec{config.d_model, config.norm_eps, config.rope};
  const auto stack = std::make_shared<LayerStack>(make_mixers(config.mixers, config.n_layers, spec),
                                                  config.d_model, config.ffn_dim, config.norm_eps);
  return std::make_shared<StackLanguageModel>(stack, ends);
}

}  // namespace tandem
