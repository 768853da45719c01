#include "cli/uptrain.h"

#include <cmath>

#include "blocktf/uptrain.h"
#include "cli/build_model.h"
#include "core/error.h"
#include "core/file.h"
#include "nn/gpt_neox.h"
#include "nn/transformer.h"

namespace tandem {
namespace {

/// The part of a family's config that is about its layers, as a choice of a stack.
template <typename StackConfig>
Choice stack_choice(const std::string& name, const StackConfig& config) {
  Choice choice = stack_factory().choice();
  choice.pick(name);
  choice.as<StackConfig>() = config;
  return choice;
}

UserError unusable(const Checkpoint& from, const std::string& expected) {
  return bad_usage("init.from = " + from.folder() + ", expected " + expected);
}

UptrainSource source_of(const Choice& model, const Checkpoint& from) {
  UptrainSource source;
  if (model.name == "transformer") {
    const auto& config = model.as<TransformerConfig>();
    source.stack = stack_choice<LayerStackConfig>(model.name, config);
    source.tied = config.tie_embeddings;
    if (config.embedding_scale) source.embedding_scale = std::sqrt(config.d_model);
  } else if (model.name == "gpt_neox") {
    const auto& config = model.as<GptNeoxConfig>();
    if (config.max_positions) {
      throw unusable(from, "a model without learned positions, not one of max_positions: " +
                               std::to_string(*config.max_positions));
    }
    source.stack = stack_choice<NeoxStackConfig>(model.name, config);
    source.tied = config.tie_embeddings;
  } else {
    throw unusable(from, "a model of family transformer or gpt_neox, not " + model.name);
  }
  source.vocab_size = from.weight("embedding.weight").size(0);
  source.weight = [&from](const std::string& name) { return from.weight(name); };
  return source;
}

}  // namespace

void uptrain_from_checkpoint(const Choice& model, LanguageModel& into, const Checkpoint& from) {
  if (model.name != "block_transformer") {
    throw bad_usage("init.as = uptrain: model.family = " + model.name +
                    ", expected block_transformer");
  }
  const std::string path = join_path(from.folder(), "config.yaml");
  const Choice source = read_model_section(parse_yaml(from.config_yaml(), path), path);
  uptrain(model.as<BlockTransformerConfig>(), into, source_of(source, from));
}

}  // namespace tandem
