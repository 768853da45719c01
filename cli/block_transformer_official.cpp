#include "cli/block_transformer_official.h"

#include <map>

#include "blocktf/official_names.h"
#include "cli/build_model.h"
#include "cli/official_weights.h"
#include "core/error.h"
#include "core/file.h"
#include "nn/checkpoint.h"

namespace tandem {
namespace {

constexpr const char* kConfig = "config.yaml";

/// `use` of the model's config; the families of the form.
template <typename Use>
auto with_config(const Choice& model, const Use& use) {
  if (model.name == "block_transformer") return use(model.as<BlockTransformerConfig>());
  if (model.name == "gpt_neox") return use(model.as<GptNeoxConfig>());
  throw bad_usage(
      "a model of family " + model.name +
      " is not in the form block-transformer, which has block_transformer and gpt_neox");
}

std::vector<OfficialTensor> official_tensors_of(const Choice& model) {
  return with_config(model, [](const auto& config) { return official_tensors(config); });
}

/// {model: SECTION}.
ConfigNode with_model_section(const ConfigNode& section) {
  ConfigNode root = ConfigNode::make_map();
  root.entries.emplace_back("model", section);
  return root;
}

Choice architecture(const std::string& folder, const ConfigNode* config) {
  if (!is_directory(folder)) throw bad_file(folder, "is not a folder");
  if (config) return read_model_section(with_model_section(*config), "--config");
  const std::string path = join_path(folder, kConfig);
  if (!exists(path)) {
    throw bad_file(folder,
                   "holds no config.yaml that says what its weights are; give --config, a training "
                   "config with their model section");
  }
  return read_model_section(parse_yaml_file(path), path);
}

/// What older files keep beside the weights: masks and rotary frequencies.
bool is_buffer(const std::string& name) {
  return name.ends_with(".attention.bias") || name.ends_with(".attention.masked_bias") ||
         name.ends_with(".attention.rotary_emb.inv_freq");
}

}  // namespace

PortableModel read_block_transformer_official(const std::string& folder, const ConfigNode* config) {
  PortableModel portable;
  portable.model = architecture(folder, config);
  const auto tensors = official_tensors_of(portable.model);
  OfficialWeights weights(folder);
  weights.skip(is_buffer);
  NamedTensors official;
  for (const auto& tensor : tensors) {
    const Tensor values = weights.take(tensor.name, tensor.shape);
    if (tensor.dead) {
      portable.weights.emplace_back(kUnusedPrefix + tensor.name, values);
    } else {
      official.emplace(tensor.name, values);
    }
  }
  weights.expect_all_taken();
  try {
    const auto ours = with_config(
        portable.model, [&](const auto& model) { return from_official(model, official); });
    portable.weights.insert(portable.weights.end(), ours.begin(), ours.end());
  } catch (const std::runtime_error& error) {
    throw bad_file(weights.path(), error.what());
  }
  return portable;
}

void write_block_transformer_official(const std::string& folder, const PortableModel& portable) {
  const auto tensors = official_tensors_of(portable.model);
  const NamedTensors ours(portable.weights.begin(), portable.weights.end());
  NamedTensors official =
      with_config(portable.model, [&](const auto& model) { return to_official(model, ours); });
  for (const auto& tensor : tensors) {
    if (!tensor.dead) continue;
    const auto kept = ours.find(kUnusedPrefix + tensor.name);
    official[tensor.name] = kept != ours.end()
                                ? kept->second
                                : torch::zeros(tensor.shape, ours.begin()->second.options());
  }
  write_official_folder(folder, official, kConfig,
                        to_yaml(with_model_section(write_model_section(portable.model))));
}

}  // namespace tandem
