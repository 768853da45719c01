#include "blocktf/uptrain.h"

#include <stdexcept>
#include <string_view>

#include "core/error.h"
#include "nn/gpt_neox.h"
#include "nn/layer_stack.h"

namespace tandem {
namespace {

constexpr const char* kOfSource = ", as in the model to start from";

/// The config of a stack, null where it is of another kind.
template <typename Config>
const Config* as(const Choice& stack) {
  const auto* config = dynamic_cast<const ConfigOf<Config>*>(stack.config.get());
  return config ? &config->value : nullptr;
}

/// Every key of a stack with its value, defaults that follow from others written out.
ConfigNode settings_of(const Choice& stack) {
  if (const auto* given = as<NeoxStackConfig>(stack)) {
    NeoxStackConfig config = *given;
    config.head_dim = config.channels_per_head();
    return write_config(config);
  }
  if (const auto* given = as<LayerStackConfig>(stack)) {
    LayerStackConfig config = *given;
    config.n_kv_heads = config.n_kv_heads.value_or(config.n_heads);
    return write_config(config);
  }
  throw std::logic_error("uptraining knows no stack " + stack.name);
}

int64_t depth_of(const Choice& stack) {
  const auto* neox = as<NeoxStackConfig>(stack);
  return neox ? neox->n_layers : stack.as<LayerStackConfig>().n_layers;
}

UserError unfit(const std::string& key, const std::string& value, const std::string& expected) {
  return bad_usage("init.as = uptrain: " + key + " = " + value + ", expected " + expected);
}

/// Throws for the first key of `own` that differs from the source's, maps inside included.
void check_same(const ConfigNode& own, const ConfigNode& source, const std::string& path) {
  for (const auto& [key, value] : own.entries) {
    const ConfigNode* found = source.find(key);
    const std::string at = path + "." + key;
    if (!found) throw unfit(at, inline_yaml(value), "no such key" + std::string(kOfSource));
    const ConfigNode& wanted = *found;
    if (key == "n_layers" || value == wanted) continue;  // depths are added up
    if (value.kind == ConfigNode::Kind::kMap) check_same(value, wanted, at);
    throw unfit(at, inline_yaml(value), inline_yaml(wanted) + kOfSource);
  }
}

void check_stack(const Choice& own, const Choice& source, const std::string& path) {
  if (own.name != source.name) {
    throw unfit(path + "." + own.key, own.name, source.name + kOfSource);
  }
  check_same(settings_of(own), settings_of(source), path);
}

const PrefixDecoderConfig& check_parts(const BlockTransformerConfig& config, int64_t d_model) {
  const auto& embedder = config.embedder;
  const auto* lookup = dynamic_cast<const ConfigOf<LookupEmbedderConfig>*>(embedder.config.get());
  if (!lookup) throw unfit("model.embedder.kind", embedder.name, "lookup");
  if (lookup->value.combine != "projection") {
    throw unfit("model.embedder.combine", lookup->value.combine, "projection");
  }
  if (lookup->value.d_embed.value_or(d_model) != d_model) {
    throw unfit("model.embedder.d_embed", std::to_string(*lookup->value.d_embed),
                std::to_string(d_model) + ", d_model of the model to start from");
  }
  const auto& decoder = config.token_decoder;
  const auto* prefix = dynamic_cast<const ConfigOf<PrefixDecoderConfig>*>(decoder.config.get());
  if (!prefix) throw unfit("model.token_decoder.kind", decoder.name, "prefix");
  return prefix->value;
}

void check_fits(const BlockTransformerConfig& config, int64_t vocab_size,
                const UptrainSource& source) {
  const ConfigNode settings = settings_of(source.stack);
  const int64_t d_model = std::stoll(settings.find("d_model")->scalar);
  const auto& prefix = check_parts(config, d_model);
  check_stack(config.block_decoder, source.stack, "model.block_decoder");
  check_stack(prefix.stack, source.stack, "model.token_decoder");
  const int64_t lower = depth_of(config.block_decoder), upper = depth_of(prefix.stack);
  if (lower + upper != depth_of(source.stack)) {
    throw unfit("model.block_decoder.n_layers + model.token_decoder.n_layers",
                std::to_string(lower) + " + " + std::to_string(upper),
                "together " + std::to_string(depth_of(source.stack)) + kOfSource);
  }
  if (vocab_size != source.vocab_size) {
    throw unfit("model.vocab_size", std::to_string(vocab_size),
                std::to_string(source.vocab_size) + kOfSource);
  }
}

/// What is left of `name` after `prefix`; empty where it does not begin with it.
std::string_view after(std::string_view name, std::string_view prefix) {
  return name.starts_with(prefix) ? name.substr(prefix.size()) : std::string_view();
}

/// "N.REST" -> "layers.(N + first).REST".
std::string source_layer(std::string_view rest, int64_t first) {
  const size_t dot = rest.find('.');
  const int64_t layer = std::stoll(std::string(rest.substr(0, dot))) + first;
  return "layers." + std::to_string(layer) + std::string(rest.substr(dot));
}

/// The start of parameter `name` of the Block Transformer, which has the shape of `like`.
Tensor start_of(const std::string& name, const Tensor& like, const BlockTransformerConfig& config,
                const UptrainSource& source) {
  const auto identities = [&](int64_t along) {  // one behind another
    const int64_t d_model = like.size(1 - along), count = like.size(along) / d_model;
    const auto identity = torch::eye(d_model, like.options());
    return torch::cat(Tensors(static_cast<size_t>(count), identity), along);
  };
  if (name == "embedder.embedding.weight" || name == "token_decoder.embedding.weight") {
    return source.weight("embedding.weight") * source.embedding_scale;
  }
  if (name == "embedder.projection.weight") {
    return identities(/*along=*/1) / config.block_length;  // [D, L * D]
  }
  if (name == "token_decoder.expansion.weight") return identities(/*along=*/0);  // [r * D, D]
  if (name == "embedder.projection.bias" || name == "token_decoder.expansion.bias") {
    return torch::zeros_like(like);
  }
  if (name == "token_decoder.head.weight") {
    return source.weight(source.tied ? "embedding.weight" : "head.weight");
  }
  if (const auto rest = after(name, "block_decoder.layers."); !rest.empty()) {
    return source.weight(source_layer(rest, 0));
  }
  if (const auto rest = after(name, "token_decoder.layers."); !rest.empty()) {
    return source.weight(source_layer(rest, depth_of(config.block_decoder)));
  }
  if (const auto rest = after(name, "token_decoder.final_norm."); !rest.empty()) {
    return source.weight("final_norm." + std::string(rest));
  }
  TORCH_CHECK(false, "uptraining knows no parameter ", name);
}

}  // namespace

void uptrain(const BlockTransformerConfig& config, LanguageModel& into,
             const UptrainSource& source) {
  check_fits(config, into.vocab_size(), source);
  const torch::NoGradGuard no_grad;
  for (auto& item : into.named_parameters()) {
    const std::string& name = item.key();
    if (!after(name, "block_decoder.final_norm.").empty()) continue;  // weights 1, biases 0
    Tensor& parameter = item.value();
    const Tensor start = start_of(name, parameter, config, source);
    TORCH_CHECK(start.sizes() == parameter.sizes(), "uptraining gives ", name, " ", start.sizes(),
                ", it has ", parameter.sizes());
    parameter.copy_(start);
  }
}

}  // namespace tandem
