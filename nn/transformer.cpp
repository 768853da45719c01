#include "nn/transformer.h"

#include "nn/stack_language_model.h"

namespace tandem {
namespace {

constexpr double kEmbeddingStd = 0.02;

}  // namespace

std::shared_ptr<LanguageModel> make_transformer(const TransformerConfig& config) {
  const TokenEnds ends = token_ends(config, config.n_layers, kEmbeddingStd);
  return std::make_shared<StackLanguageModel>(std::make_shared<LayerStack>(config), ends);
}

}  // namespace tandem
