#include "nn/transformer.h"

#include "nn/stack_language_model.h"

namespace tandem {
namespace {

constexpr double kEmbeddingStd = 0.02;

}  // namespace

std::shared_ptr<LanguageModel> make_transformer(const TransformerConfig& config) {
  TORCH_CHECK(config.vocab_size,
              "vocab_size is absent: it is set from the tokenizer before a model is built");
  TokenEnds ends;
  ends.vocab_size = *config.vocab_size;
  ends.n_layers = config.n_layers;
  ends.tie_embeddings = config.tie_embeddings;
  ends.embedding_scale = config.embedding_scale;
  ends.embedding_init = init_normal(kEmbeddingStd);
  ends.head_init = init_kaiming_uniform(config.d_model);
  return std::make_shared<StackLanguageModel>(std::make_shared<LayerStack>(config), ends);
}

}  // namespace tandem
