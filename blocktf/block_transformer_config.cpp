#include "blocktf/block_transformer.h"

namespace tandem {
namespace {

int64_t d_model_of(const Choice& stack) {
  struct Section {
    Choice stack;
    void fields(ConfigWriter& writer) { writer.choice("stack", stack); }
  } section{stack};
  const ConfigNode node = write_config(section);
  const ConfigNode* d_model = node.find("stack")->find("d_model");
  TORCH_CHECK(d_model, "stack ", stack.name, " has no key d_model, which a block decoder needs");
  return std::stoll(d_model->scalar);
}

}  // namespace

void BlockTransformerConfig::check(Checker& check) const {
  check_embedder(check, embedder, block_length, d_model_of(block_decoder));
}

BlockTransformerConfig block_transformer_defaults(std::span<const Option> stacks,
                                                  std::span<const Option> token_decoders) {
  const auto choice = [](std::span<const Option> options, const char* key) {
    Choice made;
    made.options = options;
    made.key = key;
    made.pick(options.front().name);
    return made;
  };
  BlockTransformerConfig config;
  config.embedder = choice(embedder_options(), "kind");
  config.block_decoder = choice(stacks, "stack");
  config.token_decoder = choice(token_decoders, "kind");
  return config;
}

}  // namespace tandem
