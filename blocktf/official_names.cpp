#include "blocktf/official_names.h"

#include <array>
#include <stdexcept>

#include "blocktf/embedder.h"
#include "blocktf/token_decoder.h"
#include "core/error.h"

namespace tandem {
namespace {

/// How an official tensor holds weights of ours.
enum class Layout {
  kSame,
  kFused,        // query, key and value of a head in a row, head after head: [heads, 3, K, ...]
  kConvolution,  // [H, E, L], a step over L tokens; ours [H, L * E], token after token
  kPointwise,    // [r * D, H, 1]; ours without the last dimension
  kCopy,         // of a tensor that stands under another name too
  kDead,
};

struct Part {
  std::string official;
  std::vector<int64_t> shape;  // of the official tensor
  std::string ours;            // kFused: '*' stands for q, k and v
  Layout layout = Layout::kSame;
  int64_t n_heads = 0;  // kFused
};
using Parts = std::vector<Part>;

void require(bool holds, const std::string& what, const std::string& form) {
  if (!holds) throw bad_usage(what + " is not in the official form, which has " + form);
}

// ---- the parts, with what the form cannot say of them refused

/// Weight and bias of one shape in both forms.
void add_linear(Parts& parts, const std::string& official, const std::string& ours, int64_t out,
                int64_t in) {
  parts.push_back({official + ".weight", {out, in}, ours + ".weight"});
  parts.push_back({official + ".bias", {out}, ours + ".bias"});
}
void add_norm(Parts& parts, const std::string& official, const std::string& ours, int64_t width) {
  parts.push_back({official + ".weight", {width}, ours + ".weight"});
  parts.push_back({official + ".bias", {width}, ours + ".bias"});
}

void check_neox(const std::string& path, const NeoxStackConfig& config) {
  require(config.parallel_residual, path + "parallel_residual = false", "true");
  require(config.activation == "gelu", path + "activation = " + config.activation, "gelu");
  require(config.rope.base.has_value(), path + "rope.base = none", "rotary positions");
  require(config.rope.pairs == "halves", path + "rope.pairs = " + config.rope.pairs, "halves");
  require(config.rope.exponents == "standard", path + "rope.exponents = " + config.rope.exponents,
          "standard");
  require(config.n_heads * config.channels_per_head() == config.d_model,
          path + "head_dim = " + std::to_string(config.channels_per_head()),
          "n_heads * head_dim = d_model (" + std::to_string(config.d_model) + ")");
}

/// Layers and final norm. `path` is where the config says them.
void add_neox(Parts& parts, const std::string& official, const std::string& ours,
              const std::string& path, const NeoxStackConfig& config) {
  check_neox(path, config);
  const int64_t d = config.d_model;
  for (int64_t i = 0; i < config.n_layers; ++i) {
    const std::string number = std::to_string(i), theirs = official + "layers." + number + ".",
                      layer = ours + "layers." + number + ".";
    add_norm(parts, theirs + "input_layernorm", layer + "mixer_norm", d);
    add_norm(parts, theirs + "post_attention_layernorm", layer + "ffn_norm", d);
    const std::string fused = theirs + "attention.query_key_value.",
                      projections = layer + "mixer.*_proj.";
    parts.push_back(
        {fused + "weight", {3 * d, d}, projections + "weight", Layout::kFused, config.n_heads});
    parts.push_back(
        {fused + "bias", {3 * d}, projections + "bias", Layout::kFused, config.n_heads});
    add_linear(parts, theirs + "attention.dense", layer + "mixer.o_proj", d, d);
    add_linear(parts, theirs + "mlp.dense_h_to_4h", layer + "ffn.up_proj", config.ffn_dim, d);
    add_linear(parts, theirs + "mlp.dense_4h_to_h", layer + "ffn.down_proj", d, config.ffn_dim);
  }
  add_norm(parts, official + "final_layer_norm", ours + "final_norm", d);
}

const NeoxStackConfig& neox_of(const std::string& path, const Choice& stack) {
  require(stack.name == "gpt_neox", path + "stack = " + stack.name, "gpt_neox");
  return stack.as<NeoxStackConfig>();
}

/// A convolution over `n_tokens` vectors of width d_embed.
void add_projection(Parts& parts, int64_t d_model, int64_t d_embed, int64_t n_tokens) {
  parts.push_back({"embedder.projection_layer.weight",
                   {d_model, d_embed, n_tokens},
                   "embedder.projection.weight",
                   Layout::kConvolution});
  parts.push_back({"embedder.projection_layer.bias", {d_model}, "embedder.projection.bias"});
}

/// A RoBERTa encoder.
void add_encoder(Parts& parts, int64_t vocab_size, const EncoderConfig& config) {
  const int64_t d = config.d_embed;
  require(config.n_heads * config.channels_per_head() == d,
          "model.embedder.head_dim = " + std::to_string(config.channels_per_head()),
          "n_heads * head_dim = d_embed (" + std::to_string(d) + ")");
  const std::string tables = "embedder.embeddings.";
  parts.push_back(
      {tables + "word_embeddings.weight", {vocab_size, d}, "embedder.embedding.weight"});
  parts.push_back({tables + "position_embeddings.weight",
                   {config.max_positions, d},
                   "embedder.position_embedding.weight"});
  parts.push_back(
      {tables + "token_type_embeddings.weight", {1, d}, "embedder.type_embedding.weight"});
  add_norm(parts, tables + "LayerNorm", "embedder.norm", d);
  for (int64_t i = 0; i < config.n_layers; ++i) {
    const std::string number = std::to_string(i), theirs = "embedder.encoder.layer." + number + ".",
                      layer = "embedder.layers." + number + ".";
    add_linear(parts, theirs + "attention.self.query", layer + "q_proj", d, d);
    add_linear(parts, theirs + "attention.self.key", layer + "k_proj", d, d);
    add_linear(parts, theirs + "attention.self.value", layer + "v_proj", d, d);
    add_linear(parts, theirs + "attention.output.dense", layer + "o_proj", d, d);
    add_norm(parts, theirs + "attention.output.LayerNorm", layer + "attention_norm", d);
    add_linear(parts, theirs + "intermediate.dense", layer + "up_proj", config.ffn_dim, d);
    add_linear(parts, theirs + "output.dense", layer + "down_proj", d, config.ffn_dim);
    add_norm(parts, theirs + "output.LayerNorm", layer + "ffn_norm", d);
  }
}

void add_embedder(Parts& parts, const BlockTransformerConfig& config, int64_t vocab_size,
                  int64_t d_model) {
  const Choice& embedder = config.embedder;
  const int64_t length = config.block_length;
  if (embedder.name == "encoder") {
    const auto& encoder = embedder.as<EncoderEmbedderConfig>();
    add_encoder(parts, vocab_size, encoder);
    add_projection(parts, d_model, encoder.d_embed, length);
  } else if (embedder.name == "cls") {
    const auto& encoder = embedder.as<ClsEmbedderConfig>();
    add_encoder(parts, vocab_size, encoder);
    add_projection(parts, d_model, encoder.d_embed, encoder.n_cls);
  } else {
    require(embedder.name == "lookup", "model.embedder.kind = " + embedder.name,
            "cls, encoder and lookup");
    const auto& lookup = embedder.as<LookupEmbedderConfig>();
    const int64_t d_embed = lookup.width(length, d_model);
    parts.push_back(
        {"embedder.embeddings.weight", {vocab_size, d_embed}, "embedder.embedding.weight"});
    if (lookup.projects()) add_projection(parts, d_model, d_embed, length);
  }
}

/// The context of width d_context into `count` vectors of width d.
void add_expansion(Parts& parts, int64_t count, int64_t d, int64_t d_context) {
  parts.push_back({"token_decoder.expansion_layer.weight",
                   {count * d, d_context, 1},
                   "token_decoder.expansion.weight",
                   Layout::kPointwise});
  parts.push_back(
      {"token_decoder.expansion_layer.bias", {count * d}, "token_decoder.expansion.bias"});
}

void add_neox_token_decoder(Parts& parts, const Choice& stack, int64_t n_vectors,
                            int64_t vocab_size, int64_t d_context) {
  const std::string path = "model.token_decoder.";
  const auto& config = neox_of(path, stack);
  const int64_t d = config.d_model;
  parts.push_back({"token_decoder.gpt_neox.embed_in.weight",
                   {vocab_size, d},
                   "token_decoder.embedding.weight"});
  add_neox(parts, "token_decoder.gpt_neox.", "token_decoder.", path, config);
  parts.push_back({"token_decoder.embed_out.weight", {vocab_size, d}, "token_decoder.head.weight"});
  add_expansion(parts, n_vectors, d, d_context);
}

/// The decoder of T5, its one table under three names.
void add_t5_token_decoder(Parts& parts, const CrossAttentionDecoderConfig& config,
                          int64_t n_vectors, int64_t vocab_size, int64_t d_context) {
  const int64_t d = config.d_model, inner = config.n_heads * config.head_dim;
  const std::string decoder = "token_decoder.decoder.", table = "token_decoder.embedding.weight";
  parts.push_back({"token_decoder.shared.weight", {vocab_size, d}, table});
  parts.push_back({decoder + "embed_tokens.weight", {vocab_size, d}, table, Layout::kCopy});
  parts.push_back({"token_decoder.lm_head.weight", {vocab_size, d}, table, Layout::kCopy});
  for (int64_t i = 0; i < config.n_layers; ++i) {
    const std::string number = std::to_string(i), theirs = decoder + "block." + number + ".layer.",
                      layer = "token_decoder.layers." + number + ".";
    const auto add = [&](const std::string& official, const std::string& ours,
                         std::vector<int64_t> shape) {
      parts.push_back({theirs + official + ".weight", std::move(shape), layer + ours + ".weight"});
    };
    const auto add_attention = [&](const std::string& official, const std::string& ours) {
      for (const char* name : {"q", "k", "v"})
        add(official + "." + name, ours + name + "_proj", {inner, d});
      add(official + ".o", ours + "o_proj", {d, inner});
    };
    add("0.layer_norm", "attention_norm", {d});
    add_attention("0.SelfAttention", "");
    add("1.layer_norm", "cross_norm", {d});
    add_attention("1.EncDecAttention", "cross_");
    add("2.layer_norm", "ffn_norm", {d});
    add("2.DenseReluDense.wi", "up_proj", {config.ffn_dim, d});
    add("2.DenseReluDense.wo", "down_proj", {d, config.ffn_dim});
  }
  parts.push_back({decoder + "block.0.layer.0.SelfAttention.relative_attention_bias.weight",
                   {config.position_buckets, config.n_heads},
                   "token_decoder.position_bias.weight"});
  parts.push_back({decoder + "final_layer_norm.weight", {d}, "token_decoder.final_norm.weight"});
  add_expansion(parts, n_vectors, d, d_context);
}

void add_token_decoder(Parts& parts, const BlockTransformerConfig& config, int64_t vocab_size,
                       int64_t d_context) {
  const Choice& decoder = config.token_decoder;
  if (decoder.name == "prefix") {
    const auto& prefix = decoder.as<PrefixDecoderConfig>();
    add_neox_token_decoder(parts, prefix.stack, prefix.prefix_length, vocab_size, d_context);
  } else if (decoder.name == "summation") {
    const auto& summation = decoder.as<SummationDecoderConfig>();
    add_neox_token_decoder(parts, summation.stack, config.block_length, vocab_size, d_context);
  } else {
    require(decoder.name == "cross_attention", "model.token_decoder.kind = " + decoder.name,
            "cross_attention, prefix and summation");
    add_t5_token_decoder(parts, decoder.as<CrossAttentionDecoderConfig>(), config.block_length,
                         vocab_size, d_context);
  }
}

int64_t vocab_size_of(const std::optional<int64_t>& vocab_size) {
  if (!vocab_size)
    throw bad_usage("model.vocab_size is absent, expected the number of rows of the tables");
  return *vocab_size;
}

Parts parts_of(const BlockTransformerConfig& config) {
  const int64_t vocab_size = vocab_size_of(config.vocab_size);
  const std::string path = "model.block_decoder.";
  const auto& block_decoder = neox_of(path, config.block_decoder);
  const int64_t d_model = block_decoder.d_model;
  Parts parts;
  add_embedder(parts, config, vocab_size, d_model);
  // The library gives every GPT-NeoX model an input table; this one is fed block embeddings.
  parts.push_back(
      {"block_decoder.gpt_neox.embed_in.weight", {vocab_size, d_model}, "", Layout::kDead});
  add_neox(parts, "block_decoder.gpt_neox.", "block_decoder.", path, block_decoder);
  add_token_decoder(parts, config, vocab_size, d_model);
  return parts;
}

Parts parts_of(const GptNeoxConfig& config) {
  const int64_t vocab_size = vocab_size_of(config.vocab_size);
  require(!config.tie_embeddings, "model.tie_embeddings = true", "two tables");
  require(!config.max_positions,
          "model.max_positions = " + std::to_string(config.max_positions.value_or(0)),
          "no learned positions");
  Parts parts;
  parts.push_back({"gpt_neox.embed_in.weight", {vocab_size, config.d_model}, "embedding.weight"});
  add_neox(parts, "gpt_neox.", "", "model.", config);
  parts.push_back({"embed_out.weight", {vocab_size, config.d_model}, "head.weight"});
  return parts;
}

// ---- the layouts, both ways

/// Our names of query, key and value.
std::array<std::string, 3> fused_names(const Part& part) {
  std::array<std::string, 3> names;
  for (size_t i = 0; i < names.size(); ++i) {
    names[i] = part.ours;
    names[i][names[i].find('*')] = "qkv"[i];
  }
  return names;
}

void take(const Part& part, const Tensor& tensor, NamedTensors& ours) {
  switch (part.layout) {
    case Layout::kSame:
      ours[part.ours] = tensor;
      break;
    case Layout::kFused: {
      const auto heads = tensor.unflatten(0, {part.n_heads, 3, -1});  // [heads, 3, K, ...]
      const auto names = fused_names(part);
      for (size_t i = 0; i < names.size(); ++i)
        ours[names[i]] = heads.select(1, static_cast<int64_t>(i)).flatten(0, 1).contiguous();
      break;
    }
    case Layout::kConvolution:
      ours[part.ours] = tensor.transpose(1, 2).flatten(1).contiguous();  // [H, L * E]
      break;
    case Layout::kPointwise:
      ours[part.ours] = tensor.squeeze(2);
      break;
    case Layout::kCopy:
      if (!torch::equal(tensor, ours.at(part.ours)))
        throw std::runtime_error("tensor " + part.official +
                                 " differs from token_decoder.shared.weight, whose copy it is");
      break;
    case Layout::kDead:
      break;
  }
}

Tensor give(const Part& part, const NamedTensors& ours) {
  switch (part.layout) {
    case Layout::kFused: {
      Tensors heads;
      for (const auto& name : fused_names(part))
        heads.push_back(ours.at(name).unflatten(0, {part.n_heads, -1}));
      return torch::stack(heads, 1).flatten(0, 2);  // [heads, 3, K, ...] -> [heads * 3 * K, ...]
    }
    case Layout::kConvolution:
      return ours.at(part.ours).unflatten(1, {part.shape[2], -1}).transpose(1, 2).contiguous();
    case Layout::kPointwise:
      return ours.at(part.ours).unsqueeze(2);
    default:
      return ours.at(part.ours);
  }
}

std::vector<OfficialTensor> tensors_of(const Parts& parts) {
  std::vector<OfficialTensor> tensors;
  for (const auto& part : parts)
    tensors.push_back({part.official, part.shape, part.layout == Layout::kDead});
  return tensors;
}

NamedTensors ours_of(const Parts& parts, const NamedTensors& official) {
  NamedTensors ours;
  for (const auto& part : parts) {
    if (part.layout != Layout::kDead) take(part, official.at(part.official), ours);
  }
  return ours;
}

NamedTensors official_of(const Parts& parts, const NamedTensors& ours) {
  NamedTensors official;
  for (const auto& part : parts) {
    if (part.layout != Layout::kDead) official.emplace(part.official, give(part, ours));
  }
  return official;
}

}  // namespace

std::vector<OfficialTensor> official_tensors(const BlockTransformerConfig& config) {
  return tensors_of(parts_of(config));
}
std::vector<OfficialTensor> official_tensors(const GptNeoxConfig& config) {
  return tensors_of(parts_of(config));
}
NamedTensors from_official(const BlockTransformerConfig& config, const NamedTensors& official) {
  return ours_of(parts_of(config), official);
}
NamedTensors from_official(const GptNeoxConfig& config, const NamedTensors& official) {
  return ours_of(parts_of(config), official);
}
NamedTensors to_official(const BlockTransformerConfig& config, const NamedTensors& ours) {
  return official_of(parts_of(config), ours);
}
NamedTensors to_official(const GptNeoxConfig& config, const NamedTensors& ours) {
  return official_of(parts_of(config), ours);
}

}  // namespace tandem
