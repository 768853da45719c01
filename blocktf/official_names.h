#pragma once
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "blocktf/block_transformer.h"
#include "nn/gpt_neox.h"

namespace tandem {

// Models as the official Block Transformer code (itsnamgyu/block-transformer) keeps their weights: one module tree with GPT-NeoX, RoBERTa and T5 parts under HuggingFace's names, fused and
// interleaved query_key_value, convolutions for projections, a block-decoder table that nothing reads, T5's one table three times.

/// A tensor of the official form.
struct OfficialTensor {
  std::string name;
  std::vector<int64_t> shape;
  bool dead = false;  // nothing reads it
};
/// All of them for a model, by its parts; what "stored" counts. Throws UserError naming a part that the official form has not (a block decoder or token decoder of other layers than
/// GPT-NeoX's, GPT-2's settings, ...).
std::vector<OfficialTensor> official_tensors(const BlockTransformerConfig& config);
std::vector<OfficialTensor> official_tensors(const GptNeoxConfig& config);

using NamedTensors = std::map<std::string, Tensor>;
/// Our weights out of all official ones but the dead, and back; every tensor of official_tensors() that is not dead is there. Both directions are exact. Throws std::runtime_error naming
/// a tensor where T5's three copies differ.
NamedTensors from_official(const BlockTransformerConfig& config, const NamedTensors& official);
NamedTensors from_official(const GptNeoxConfig& config, const NamedTensors& official);
NamedTensors to_official(const BlockTransformerConfig& config, const NamedTensors& ours);
NamedTensors to_official(const GptNeoxConfig& config, const NamedTensors& ours);

}  // namespace tandem
