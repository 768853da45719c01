#pragma once
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "nn/layer_stack.h"

namespace tandem {

/// Rotary positions as YOCO's code has them: interleaved pairs, exponents over [0, 1] with both ends.
struct YocoRopeConfig : RopeConfig {
  YocoRopeConfig() {
    pairs = "interleaved";
    exponents = "inclusive";
  }
  template <typename Visitor>
  void fields(Visitor& visit) { fields_of_whole_heads(visit); }
};

/// A decoder's own rotary positions: what it leaves out is the model's.
struct DecoderRopeConfig {
  static constexpr double kModels = 0;     // a base that no config may give
  std::optional<double> base = kModels;    // empty: switched off
  std::string pairs, exponents;            // empty: the model's
  template <typename Visitor>
  void fields(Visitor& visit) {
    constexpr bool writes = std::is_same_v<Visitor, ConfigWriter>;  // only what was given
    if (!writes || base != kModels) visit.optional_or_none("base", base, above(0));
    if (!writes || !pairs.empty()) visit.one_of("pairs", pairs, {"interleaved", "halves"});
    if (!writes || !exponents.empty()) visit.one_of("exponents", exponents, {"inclusive", "standard"});
  }
};
/// The rope of a decoder out of its own config, if it has one, and the model's.
RopeConfig resolved_rope(const std::optional<DecoderRopeConfig>& own, RopeConfig model);

struct SelfDecoderConfig {
  int64_t n_layers = 6;  // 0: keys and values are made of the embeddings (layout [0:1] of the ablations)
  std::vector<Choice> mixers = {mixer_choice("gated_retention")};  // layer i takes mixers[i % size]
  std::optional<DecoderRopeConfig> rope;                           // absent: the model's
  template <typename Visitor>
  void fields(Visitor& visit) {
    visit.value("n_layers", n_layers, at_least(0));
    visit.choices("mixers", mixers, mixer_choice("gated_retention"));
    visit.section("rope", rope);
  }
  void check(Checker& check) const { check.require(!mixers.empty(), "mixers", "[]", "at least one mixer"); }
};

/// The first half of the model (YOCO, sec. 2.1): pre-norm layers whose mixers keep a state of constant size. Llama-like otherwise. Module: layers.
class SelfDecoder : public Module {
 public:
  /// `spec.rope` is the model's, which `config.rope` overrides.
  SelfDecoder(const SelfDecoderConfig& config, const MixerSpec& spec, int64_t ffn_dim);
  /// x: [B, T, D], the embeddings, -> [B, T, D], not normalised.
  Tensor forward(const Tensor& x, const ForwardContext& context, LayerStates* states) { return layers_->forward(x, context, states); }
  const DecoderLayers& layers() const { return *layers_; }

 private:
  std::shared_ptr<DecoderLayers> layers_;
};

}  // namespace tandem
