#pragma once
#include <optional>
#include <vector>

#include "nn/layer_stack.h"

namespace tandem {

/// Rotary positions as YOCO's code has them: interleaved pairs, exponents over [0, 1] with both ends.
struct YocoRopeConfig : RopeConfig {
  YocoRopeConfig() {
    pairs = "interleaved";
    exponents = "inclusive";
  }
};

struct SelfDecoderConfig {
  int64_t n_layers = 6;
  std::vector<Choice> mixers = {mixer_choice("gated_retention")};  // layer i takes mixers[i % size]
  std::optional<YocoRopeConfig> rope;                              // absent: the model's
  template <typename Visitor>
  void fields(Visitor& visit) {
    visit.value("n_layers", n_layers, at_least(1));
    visit.choices("mixers", mixers, mixer_choice("gated_retention"));
    visit.section("rope", rope);
  }
  void check(Checker& check) const { check.require(!mixers.empty(), "mixers", "[]", "at least one mixer"); }
};

/// The first half of the model (YOCO, sec. 2.1): pre-norm layers whose mixers keep a state of constant size. Llama-like otherwise. Module: layers.
class SelfDecoder : public Module {
 public:
  /// `spec` holds the rope of the model, which `config.rope` replaces.
  SelfDecoder(const SelfDecoderConfig& config, const MixerSpec& spec, int64_t ffn_dim);
  /// x: [B, T, D], the embeddings, -> [B, T, D], not normalised.
  Tensor forward(const Tensor& x, const ForwardContext& context, LayerStates* states) { return layers_->forward(x, context, states); }
  const DecoderLayers& layers() const { return *layers_; }

 private:
  std::shared_ptr<DecoderLayers> layers_;
};

}  // namespace tandem
