#pragma once
#include <memory>
#include <optional>
#include <vector>

#include "nn/language_model.h"
#include "nn/token_mixer.h"
#include "yoco/self_decoder.h"

namespace tandem {

/// The decoder-only models YOCO is compared with (sec. 4 and its ablations): Llama-like layers whose mixers repeat a pattern, under YOCO's conventions for
/// rotary positions, embeddings and initial values. RetNet has `retention` in every layer, gRetNet gated_retention, hybrids have full attention in some.
struct HybridConfig {
  std::optional<int64_t> vocab_size;  // absent: the tokenizer's
  bool tie_embeddings = false;        // the head reads embedding.weight
  bool embedding_scale = true;        // embeddings times sqrt(d_model)
  int64_t d_model = 768;
  int64_t ffn_dim = 2048;  // inner width of SwiGLU
  double norm_eps = 1e-5;  // of every norm, the one inside retention too
  YocoRopeConfig rope;
  int64_t n_layers = 12;
  std::vector<Choice> mixers = {mixer_choice("gated_retention"), mixer_choice("full_attention")};  // layer i takes mixers[i % size]
  template <typename Visitor>
  void fields(Visitor& visit) {
    visit.optional("vocab_size", vocab_size, at_least(1));
    visit.value("tie_embeddings", tie_embeddings);
    visit.value("embedding_scale", embedding_scale);
    visit.value("d_model", d_model, at_least(1));
    visit.value("ffn_dim", ffn_dim, at_least(1));
    visit.value("norm_eps", norm_eps, above(0));
    visit.section("rope", rope);
    visit.value("n_layers", n_layers, at_least(1));
    visit.choices("mixers", mixers, mixer_choice("gated_retention"));
  }
  void check(Checker& check) const { check.require(!mixers.empty(), "mixers", "[]", "at least one mixer"); }
};

/// The model on the meta device. Names: embedding.weight, layers.N.{mixer_norm,mixer.*,ffn_norm,ffn.*}, final_norm.weight, head.weight (unless tied).
/// Throws c10::Error while vocab_size is absent.
std::shared_ptr<LanguageModel> make_hybrid(const HybridConfig& config);

}  // namespace tandem
