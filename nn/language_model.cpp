#include "nn/language_model.h"

#include "nn/device_sampler.h"

namespace tandem {

Tensor LanguageModel::generate_block(ModelState& state, DeviceSampler& sampler) {
  TORCH_CHECK(state.next_logits.defined(),
              "generate_block: the state holds no next_logits; call extend(kLast) first");
  const auto ids = sampler.sample(state.next_logits).unsqueeze(1);  // [B, 1]
  extend(ids, /*lengths=*/{}, state, Want::kLast);
  return ids;
}

}  // namespace tandem
