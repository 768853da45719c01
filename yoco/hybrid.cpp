#include "yoco/hybrid.h"

#include <cmath>

#include "nn/layer_stack.h"
#include "nn/stack_language_model.h"

namespace tandem {

std::shared_ptr<LanguageModel> make_hybrid(const HybridConfig& config) {
  TORCH_CHECK(config.vocab_size,
              "vocab_size is absent: it is set from the tokenizer before a model is built");
  TokenEnds ends;
  ends.vocab_size = *config.vocab_size;
  ends.n_layers = config.n_layers;
  ends.tie_embeddings = config.tie_embeddings;
  ends.embedding_scale = config.embedding_scale;
  ends.embedding_init = init_normal(1 / std::sqrt(static_cast<double>(config.d_model)));
  ends.head_init = init_kaiming_uniform(config.d_model);
  const MixerSpec spec{config.d_model, config.norm_eps, config.rope};
  const auto stack = std::make_shared<LayerStack>(make_mixers(config.mixers, config.n_layers, spec),
                                                  config.d_model, config.ffn_dim, config.norm_eps);
  return std::make_shared<StackLanguageModel>(stack, ends);
}

}  // namespace tandem
