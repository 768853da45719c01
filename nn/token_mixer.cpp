#include "nn/token_mixer.h"

#include <algorithm>

#include "nn/full_attention.h"
#include "nn/gated_retention.h"
#include "nn/multi_scale_retention.h"
#include "nn/sliding_window_attention.h"

namespace tandem {
namespace {

struct MixerEntry {
  Option option;
  std::function<std::shared_ptr<TokenMixer>(const Choice&, const MixerSpec&)> make;
};

template <typename Mixer, typename Config>
MixerEntry entry(const char* name) {
  return {option<Config>(name), [](const Choice& choice, const MixerSpec& spec) {
            return std::make_shared<Mixer>(choice.as<Config>(), spec);
          }};
}

/// mixers: [{name: <name>, ...}]
const std::vector<MixerEntry>& mixers() {
  static const std::vector<MixerEntry> kMixers = {
      entry<GatedRetention, GatedRetentionConfig>("gated_retention"),
      entry<MultiScaleRetention, MultiScaleRetentionConfig>("retention"),
      entry<SlidingWindowAttention, SlidingWindowConfig>("sliding_window"),
      entry<FullAttention, FullAttentionConfig>("full_attention"),
  };
  return kMixers;
}

}  // namespace

std::span<const Option> mixer_options() {
  static const std::vector<Option> kOptions = [] {
    std::vector<Option> options;
    for (const auto& mixer : mixers()) options.push_back(mixer.option);
    return options;
  }();
  return kOptions;
}

Choice mixer_choice(const std::string& name) {
  Choice choice;
  choice.options = mixer_options();
  choice.pick(name);
  return choice;
}

std::shared_ptr<TokenMixer> make_mixer(const Choice& choice, const MixerSpec& spec) {
  const auto found = std::ranges::find(mixers(), choice.name,
                                       [](const MixerEntry& mixer) { return mixer.option.name; });
  TORCH_CHECK(found != mixers().end(), "make_mixer: no mixer is called \"", choice.name, "\"");
  return found->make(choice, spec);
}

std::vector<std::shared_ptr<TokenMixer>> make_mixers(const std::vector<Choice>& pattern,
                                                     int64_t n_layers, const MixerSpec& spec) {
  std::vector<std::shared_ptr<TokenMixer>> mixers;
  for (int64_t i = 0; i < n_layers; ++i)
    mixers.push_back(make_mixer(pattern[i % pattern.size()], spec));
  return mixers;
}

bool rows_are_full(const Tensor& lengths, int64_t n_tokens) {
  return !lengths.defined() || (lengths.is_cpu() && lengths.eq(n_tokens).all().item<bool>());
}

}  // namespace tandem
