#pragma once
#include <memory>
#include <string>
#include <vector>

#include "blocktf/token_decoder.h"
#include "core/config_node.h"
#include "nn/gpt_neox.h"
#include "nn/layer_stack.h"

// What the tests of token decoders share: a table of two stacks, and decoders out of a line of
// YAML.

namespace tandem {

inline const Option kTestStacks[] = {option<NeoxStackConfig>("gpt_neox"),
                                     option<LayerStackConfig>("transformer")};

inline StackFactory test_stacks() {
  return {kTestStacks, [](const Choice& stack) -> std::shared_ptr<DecoderStack> {
            if (stack.name == "gpt_neox") return make_neox_stack(stack.as<NeoxStackConfig>());
            return std::make_shared<LayerStack>(stack.as<LayerStackConfig>());
          }};
}

struct TokenDecoderHolder {
  Choice token_decoder;
  template <typename Visitor>
  void fields(Visitor& visit) {
    visit.choice("token_decoder", token_decoder);
  }
};

/// `text`: the config of a token decoder as inline YAML.
inline Choice token_decoder_choice(const std::string& text) {
  static const std::vector<Option> options = token_decoder_options(kTestStacks);
  TokenDecoderHolder holder;
  holder.token_decoder.options = options;
  holder.token_decoder.key = "kind";
  read_config(parse_yaml("token_decoder: " + text, "test.yaml"), holder);
  return holder.token_decoder;
}

inline constexpr int64_t kTestVocab = 17, kTestContext = 7;  // V, H

inline TokenDecoderSpec test_spec(int64_t block_length, bool official = false) {
  return {.vocab_size = kTestVocab,
          .block_length = block_length,
          .d_context = kTestContext,
          .official_generation_positions = official};
}

/// On the meta device.
inline std::shared_ptr<TokenDecoder> test_decoder(const std::string& text, int64_t block_length,
                                                  bool official = false) {
  return make_token_decoder(token_decoder_choice(text), test_spec(block_length, official),
                            test_stacks());
}

/// Width 10; 3 heads of 6 channels, of which 4 are rotated.
inline const std::string kNeoxKeys =
    "stack: gpt_neox, n_layers: 2, d_model: 10, ffn_dim: 13, n_heads: 3, head_dim: 6, "
    "rope: {fraction: 0.7}";
inline const std::string kTransformerKeys =
    "stack: transformer, n_layers: 2, d_model: 10, ffn_dim: 13, n_heads: 3, n_kv_heads: 1, "
    "head_dim: 6";
/// Buckets of distances 0, 1, 2, 3, 4, 5: 0, 1, 2, 2, 3, 3.
inline const std::string kCrossAttention =
    "{kind: cross_attention, d_model: 10, n_layers: 2, n_heads: 3, head_dim: 5, ffn_dim: 13, "
    "position_buckets: 4, max_position_distance: 8}";
inline std::string prefix_of(int64_t length, const std::string& stack_keys = kNeoxKeys) {
  return "{kind: prefix, prefix_length: " + std::to_string(length) + ", " + stack_keys + "}";
}
inline std::string summation_of(const std::string& stack_keys = kNeoxKeys) {
  return "{kind: summation, bos_id: 3, " + stack_keys + "}";
}

}  // namespace tandem
