#pragma once
#include <memory>
#include <optional>
#include <string>

#include "blocktf/embedder.h"
#include "blocktf/token_decoder.h"
#include "nn/language_model.h"
#include "nn/stack_factory.h"
#include "nn/tensor_traffic.h"

namespace tandem {

/// "Block Transformer: Global-to-Local Language Modeling for Fast Inference", arXiv 2406.02657. The tables of its three parts are set by who knows them:
/// block_transformer_defaults.
struct BlockTransformerConfig {
  std::optional<int64_t> vocab_size;  // absent: the tokenizer's
  int64_t block_length = 4;           // L, tokens of a block
  bool pad_documents = true;          // in training 0 to L - 1 tokens of padding in front of each document and its last block filled up, so that prompts of any length may be padded
                                      // to whole blocks (sec. 3.1, app. H); false: as the published models of 300M parameters and more were trained
  std::string generation_positions = "training";  // rotary positions in the token decoder while generating: training | official (all prefix vectors at 0)
  Choice embedder, block_decoder, token_decoder;
  template <typename Visitor>
  void fields(Visitor& visit) {
    visit.optional("vocab_size", vocab_size, at_least(1));
    visit.value("block_length", block_length, at_least(1));
    visit.value("pad_documents", pad_documents);
    visit.one_of("generation_positions", generation_positions, {"official", "training"});
    visit.choice("embedder", embedder);
    visit.choice("block_decoder", block_decoder);
    visit.choice("token_decoder", token_decoder);
  }
  void check(Checker& check) const;
};

/// An empty config whose parts are chosen from the tables: lookup, `stacks`' first and prefix until the file says otherwise. `token_decoders` is token_decoder_options().
BlockTransformerConfig block_transformer_defaults(std::span<const Option> stacks, std::span<const Option> token_decoders);

/// What passes each module of the model in a micro-batch of `rows` rows of `length` tokens whose blocks are all scored.
TokensThrough tokens_through(const BlockTransformerConfig& config, int64_t rows, int64_t length);

/// The model on the meta device. Names: embedder.*, block_decoder.*, token_decoder.* as the parts call theirs. Rows begin at a block's border; a last block that is not full is
/// decoded too. Padding (segment -1) is embedded and, where a whole block is padding, hidden from the block decoder.
/// State: "block_decoder.*" of one position a block, "context" [B, H], the tokens of the block that is not full, "tail" [B, L], and the token decoder's keys and values of
/// that block, "token_decoder.*". Throws c10::Error while vocab_size is absent.
std::shared_ptr<LanguageModel> make_block_transformer(const BlockTransformerConfig& config, const StackFactory& stacks);

}  // namespace tandem
