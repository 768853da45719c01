#include "blocktf/token_decoder.h"

#include "blocktf/cross_attention_decoder.h"
#include "blocktf/stack_token_decoder.h"

namespace tandem {
namespace {

/// A kind whose layers are picked from `stacks`. Every config gets a stack of its own.
template <typename Config>
Option option_with_stack(const std::string& name, std::span<const Option> stacks) {
  return {name, [stacks] {
            auto config = std::make_unique<ConfigOf<Config>>();
            config->value.stack.options = stacks;
            config->value.stack.key = "stack";
            config->value.stack.pick(stacks.front().name);
            return config;
          }};
}

}  // namespace

void CrossAttentionDecoderConfig::check(Checker& check) const {
  const int64_t exact = position_buckets / 2;
  check.require(max_position_distance > exact, "max_position_distance",
                std::to_string(max_position_distance),
                "more than half of position_buckets (" + std::to_string(exact) + ")");
}

std::vector<Option> token_decoder_options(std::span<const Option> stacks) {
  return {option_with_stack<PrefixDecoderConfig>("prefix", stacks),
          option_with_stack<SummationDecoderConfig>("summation", stacks),
          option<CrossAttentionDecoderConfig>("cross_attention")};
}

std::shared_ptr<TokenDecoder> make_token_decoder(const Choice& choice, const TokenDecoderSpec& spec,
                                                 const StackFactory& stacks) {
  if (choice.name == "prefix") {
    const auto& config = choice.as<PrefixDecoderConfig>();
    return make_prefix_decoder(config, spec, stacks.build(config.stack));
  }
  if (choice.name == "summation") {
    const auto& config = choice.as<SummationDecoderConfig>();
    return make_summation_decoder(config, spec, stacks.build(config.stack));
  }
  return make_cross_attention_decoder(choice.as<CrossAttentionDecoderConfig>(), spec);
}

}  // namespace tandem
