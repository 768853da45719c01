#pragma once
#include <functional>
#include <string>

#include "blocktf/block_transformer.h"

namespace tandem {

/// Where uptraining comes from: a decoder-only model of the same kind of layers as the two decoders'.
struct UptrainSource {
  Choice stack;                   // its layers, as a choice of a stack: gpt_neox | transformer
  int64_t vocab_size = 0;
  double embedding_scale = 1;     // what its embeddings are multiplied by; 1 = nothing
  bool tied = false;              // its head is its embedding
  std::function<Tensor(const std::string& name)> weight;  // float32 on the CPU
};

/// The initial values of the paper's uptraining (sec. 3.5, app. G), "partition": block decoder and token decoder take the lower and the upper half of the source's layers, the token decoder
/// its final norm and head too, both tables are the source's embeddings (times their scale), the projection of the lookup embedder is the mean of the block's embeddings, the expansion gives the
/// context as each prefix vector; biases 0, the block decoder's final norm stays at its own start. `into` is materialised in float32.
/// Throws UserError where the two do not fit: kinds or settings of the layers, depths, widths, a vocabulary, an embedder or token decoder of another kind.
void uptrain(const BlockTransformerConfig& config, LanguageModel& into, const UptrainSource& source);

}  // namespace tandem
