#pragma once
#include <memory>
#include <optional>

#include "nn/language_model.h"
#include "yoco/yoco_stack.h"

namespace tandem {

/// "You Only Cache Once: Decoder-Decoder Architectures for Language Models", arXiv 2405.05254.
struct YocoConfig : YocoStackConfig {
  std::optional<int64_t> vocab_size;  // absent: the tokenizer's
  bool tie_embeddings = false;        // the head reads embedding.weight
  bool embedding_scale = true;        // embeddings times sqrt(d_model)
  template <typename Visitor>
  void fields(Visitor& visit) {
    visit.optional("vocab_size", vocab_size, at_least(1));
    visit.value("tie_embeddings", tie_embeddings);
    visit.value("embedding_scale", embedding_scale);
    YocoStackConfig::fields(visit);
  }
};

/// The model on the meta device. Names: embedding.weight, self_decoder.layers.N.{mixer_norm,mixer.*,ffn_norm,ffn.*}, shared_kv.{norm,k_proj,v_proj}.weight,
/// cross_decoder.layers.N.{mixer_norm,mixer.{q_proj,o_proj},ffn_norm,ffn.*}, final_norm.weight, head.weight (unless tied). With cross_decoder.qkv_bias
/// also shared_kv.{k_proj,v_proj}.bias and mixer.q_proj.bias, with cross_decoder.q_norm_eps mixer.q_norm.weight.
/// Throws c10::Error while vocab_size is absent.
std::shared_ptr<LanguageModel> make_yoco(const YocoConfig& config);

}  // namespace tandem
