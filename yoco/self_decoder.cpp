#include "yoco/self_decoder.h"

namespace tandem {
namespace {

std::vector<std::shared_ptr<TokenMixer>> mixer_of_each_layer(const SelfDecoderConfig& config,
                                                             MixerSpec spec) {
  spec.rope = resolved_rope(config.rope, spec.rope);
  std::vector<std::shared_ptr<TokenMixer>> mixers;
  for (int64_t i = 0; i < config.n_layers; ++i)
    mixers.push_back(make_mixer(config.mixers[i % config.mixers.size()], spec));
  return mixers;
}

}  // namespace

RopeConfig resolved_rope(const std::optional<DecoderRopeConfig>& own, RopeConfig model) {
  if (!own) return model;
  if (own->base != DecoderRopeConfig::kModels) model.base = own->base;
  if (!own->pairs.empty()) model.pairs = own->pairs;
  if (!own->exponents.empty()) model.exponents = own->exponents;
  return model;
}

SelfDecoder::SelfDecoder(const SelfDecoderConfig& config, const MixerSpec& spec, int64_t ffn_dim)
    : layers_(register_module(
          "layers", std::make_shared<DecoderLayers>(mixer_of_each_layer(config, spec), spec.d_model,
                                                    ffn_dim, spec.norm_eps))) {}

}  // namespace tandem
