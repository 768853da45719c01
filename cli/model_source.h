#pragma once
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cli/portable_model.h"

namespace tandem {

/// What a folder says beside weights and architecture.
struct ModelFacts {
  std::optional<int64_t> context_length;  // tokens the model was made for
  nlohmann::ordered_json special_ids =
      nlohmann::ordered_json::object();  // bos_token_id, eos_token_id, pad_token_id, those that are
                                         // known
};

/// A model whose weights are read when they are asked for, one at a time: in a checkpoint, or in a
/// folder of another program.
struct ModelSource {
  Choice model;
  std::vector<std::pair<std::string, std::vector<int64_t>>>
      weights;  // our names and shapes, those under kUnusedPrefix with them; tied weights once
  std::function<Tensor(const std::string& name)> read;  // float32 on the CPU
  ModelFacts facts;
  std::vector<std::string>
      tokenizer_files;  // paths, best first; those that load_tokenizer() may take
};

/// All of it at once, and back.
ModelSource source_of(PortableModel portable);
PortableModel read_whole(const ModelSource& source, torch::Dtype dtype);

/// A checkpoint, or the newest of a run. The tokenizer's vocabulary counts where the config gives
/// none.
ModelSource open_checkpoint(const std::string& path);

/// Every weight of `expected`, rounded to `dtype`, is in `found`, bit for bit; throws bad_file
/// naming `path` and the first that is not. Then, where the weights take no more than
/// `logits_bytes`, the logits of both, which also shows that the architectures agree. Says on the
/// log what was compared.
void verify_equal(const std::string& path, const ModelSource& found, const ModelSource& expected,
                  torch::Dtype dtype, int64_t logits_bytes = int64_t{2} << 30);

}  // namespace tandem
