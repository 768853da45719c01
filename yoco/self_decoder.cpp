#include "yoco/self_decoder.h"

namespace tandem {

RopeConfig resolved_rope(const std::optional<DecoderRopeConfig>& own, RopeConfig model) {
  if (!own) return model;
  if (own->base != DecoderRopeConfig::kModels) model.base = own->base;
  if (!own->pairs.empty()) model.pairs = own->pairs;
  if (!own->exponents.empty()) model.exponents = own->exponents;
  return model;
}

SelfDecoder::SelfDecoder(const SelfDecoderConfig& config, const MixerSpec& spec, int64_t ffn_dim) {
  MixerSpec own = spec;
  own.rope = resolved_rope(config.rope, spec.rope);
  layers_ = register_module("layers", std::make_shared<DecoderLayers>(make_decoder_layers(
                                          make_mixers(config.mixers, config.n_layers, own),
                                          spec.d_model, ffn_dim, spec.norm_eps)));
}

}  // namespace tandem
