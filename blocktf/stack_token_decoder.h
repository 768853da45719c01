#pragma once
#include <memory>

#include "blocktf/token_decoder.h"

namespace tandem {

/// Token decoders whose layers are a stack's: a table, the stack and a head (Block Transformer, sec. 2.4). The stack's children are registered as
/// children of the decoder itself.
std::shared_ptr<TokenDecoder> make_prefix_decoder(const PrefixDecoderConfig& config, const TokenDecoderSpec& spec, std::shared_ptr<DecoderStack> stack);
std::shared_ptr<TokenDecoder> make_summation_decoder(const SummationDecoderConfig& config, const TokenDecoderSpec& spec, std::shared_ptr<DecoderStack> stack);

}  // namespace tandem
