#pragma once
#include <memory>
#include <optional>

#include "nn/language_model.h"
#include "nn/layer_stack.h"

namespace tandem {

/// The decoder-only baseline both papers compare with, Llama-like: RMSNorm, rotary positions in halves, SwiGLU, no biases but where asked for.
struct TransformerConfig : LayerStackConfig {
  std::optional<int64_t> vocab_size;  // absent: the tokenizer's
  bool tie_embeddings = false;        // the head reads embedding.weight
  bool embedding_scale = false;       // embeddings times sqrt(d_model)
  template <typename Visitor>
  void fields(Visitor& visit) {
    visit.optional("vocab_size", vocab_size, at_least(1));
    visit.value("tie_embeddings", tie_embeddings);
    visit.value("embedding_scale", embedding_scale);
    LayerStackConfig::fields(visit);
  }
};

/// The model on the meta device. Names: embedding.weight, layers.N.{mixer_norm,mixer.*,ffn_norm,ffn.*}, final_norm.weight, head.weight (unless tied).
/// Throws c10::Error while vocab_size is absent.
std::shared_ptr<LanguageModel> make_transformer(const TransformerConfig& config);

}  // namespace tandem
