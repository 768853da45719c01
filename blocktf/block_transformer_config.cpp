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

TokensThrough tokens_through(const BlockTransformerConfig& config, int64_t rows, int64_t length) {
  const std::string &embedder = config.embedder.name, &decoder = config.token_decoder.name;
  const int64_t block = config.block_length;
  const int64_t n_cls = embedder == "cls" ? config.embedder.as<ClsEmbedderConfig>().n_cls : 0;
  // Inputs of a block in the token decoder's layers, and those of them that are looked up.
  const bool prefix = decoder == "prefix";
  const int64_t looked_up = prefix ? block - 1 : block;
  const int64_t inputs =
      prefix ? config.token_decoder.as<PrefixDecoderConfig>().prefix_length + looked_up : block;
  const double n_blocks = static_cast<double>(rows * (length / block));
  return [=](const std::string& module) -> double {
    if (module.starts_with("embedder")) return n_blocks * static_cast<double>(n_cls + block);
    if (module.starts_with("block_decoder")) return n_blocks;
    if (module == "token_decoder.embedding") return n_blocks * static_cast<double>(looked_up);
    if (module == "token_decoder.position_bias") return static_cast<double>(block * block);
    // The context's vectors are as many as the block's inputs.
    return n_blocks * static_cast<double>(inputs);
  };
}

}  // namespace tandem
