#include "nn/gpt_neox.h"

#include "nn/stack_language_model.h"

namespace tandem {

void NeoxStackConfig::check(Checker& check) const {
  if (!head_dim) {
    check.divides("n_heads", n_heads, "d_model", d_model);
    const bool by_heads = check.written("n_heads");
    check.require(channels_per_head() % 2 == 0, by_heads ? "n_heads" : "d_model",
                  std::to_string(by_heads ? n_heads : d_model),
                  "heads of an even number of channels; d_model / n_heads is " +
                      std::to_string(channels_per_head()));
  }
  check_rope(check, rope, channels_per_head());
}

std::shared_ptr<LayerStack> make_neox_stack(const NeoxStackConfig& config) {
  const NeoxLayerSpec spec{.d_model = config.d_model,
                           .ffn_dim = config.ffn_dim,
                           .n_heads = config.n_heads,
                           .head_dim = config.channels_per_head(),
                           .norm_eps = config.norm_eps,
                           .rope = config.rope,
                           .parallel_residual = config.parallel_residual,
                           .activation = config.activation};
  Layers layers;
  for (int64_t i = 0; i < config.n_layers; ++i) layers.push_back(std::make_shared<NeoxLayer>(spec));
  return std::make_shared<LayerStack>(
      std::move(layers), config.d_model,
      std::make_shared<LayerNormImpl>(config.d_model, config.norm_eps));
}

std::shared_ptr<LanguageModel> make_gpt_neox(const GptNeoxConfig& config) {
  const TokenEnds ends{.vocab_size = given_vocab_size(config.vocab_size),
                       .n_layers = config.n_layers,
                       .tie_embeddings = config.tie_embeddings,
                       .embedding_init = init_normal(kNeoxStd),
                       .head_init = init_normal(kNeoxStd),
                       .max_positions = config.max_positions.value_or(0)};
  return std::make_shared<StackLanguageModel>(make_neox_stack(config), ends);
}

}  // namespace tandem
