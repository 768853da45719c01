#include "yoco/yoco.h"

#include <cmath>

#include "nn/stack_language_model.h"

namespace tandem {

std::shared_ptr<LanguageModel> make_yoco(const YocoConfig& config) {
  TORCH_CHECK(config.vocab_size,
              "vocab_size is absent: it is set from the tokenizer before a model is built");
  TokenEnds ends;
  ends.vocab_size = *config.vocab_size;
  ends.n_layers = config.self_decoder.n_layers + config.cross_decoder.n_layers;
  ends.tie_embeddings = config.tie_embeddings;
  ends.embedding_scale = config.embedding_scale;
  ends.embedding_init = init_normal(1 / std::sqrt(static_cast<double>(config.d_model)));
  ends.head_init = init_kaiming_uniform(config.d_model);
  return std::make_shared<StackLanguageModel>(std::make_shared<YocoStack>(config), ends);
}

}  // namespace tandem
