// Llama as transformers keeps it. Rotary pairs are (i, i + K/2) there as they are here (rope.pairs:
// halves), so that no rows of q_proj and k_proj are permuted: only Meta's own files have
// interleaved pairs.
#include "cli/build_model.h"
#include "cli/hf_form.h"
#include "core/yaml_scalar.h"
#include "nn/transformer.h"

namespace tandem {
namespace {

const Renaming kNames[] = {
    // ours, theirs behind "model."; the head stands outside
    {"embedding", "embed_tokens"},
    {"mixer_norm", "input_layernorm"},
    {"mixer.q_proj", "self_attn.q_proj"},
    {"mixer.k_proj", "self_attn.k_proj"},
    {"mixer.v_proj", "self_attn.v_proj"},
    {"mixer.o_proj", "self_attn.o_proj"},
    {"ffn_norm", "post_attention_layernorm"},
    {"ffn.gate_proj", "mlp.gate_proj"},
    {"ffn.up_proj", "mlp.up_proj"},
    {"ffn.down_proj", "mlp.down_proj"},
    {"final_norm", "norm"},
};
constexpr const char* kForm = "hf-llama";

std::string their_name(const std::string& ours) {
  return ours == "head.weight" ? "lm_head.weight" : "model." + renamed(ours, kNames);
}

Choice read(OfficialParams& params) {
  TransformerConfig config;
  config.vocab_size = params.integer("vocab_size");
  config.d_model = params.integer("hidden_size");
  config.ffn_dim = params.integer("intermediate_size");
  config.n_layers = read_layers(params, "num_hidden_layers");
  config.n_heads = params.integer("num_attention_heads");
  config.n_kv_heads = params.integer_or("num_key_value_heads", config.n_heads);
  params.require(config.n_heads % *config.n_kv_heads == 0, "num_attention_heads",
                 "a multiple of num_key_value_heads (" + std::to_string(*config.n_kv_heads) + ")");
  if (params.given("head_dim")) {
    config.head_dim = params.integer("head_dim");
  } else {
    params.require(config.d_model % config.n_heads == 0, "hidden_size",
                   "a multiple of num_attention_heads (" + std::to_string(config.n_heads) +
                       "), as there is no head_dim");
    config.head_dim = config.d_model / config.n_heads;
  }
  if (config.head_dim % 2 != 0)
    throw std::runtime_error("heads of " + std::to_string(config.head_dim) +
                             " channels, expected an even number");
  config.norm_eps = params.positive_or("rms_norm_eps", 1e-6);
  config.tie_embeddings = params.flag_or("tie_word_embeddings", false);
  for (const char* key : {"attention_bias", "mlp_bias"})
    params.require(!params.flag_or(key, false), key, "false: the projections have no biases");
  const std::string activation = params.text_or("hidden_act", "silu");
  params.require(activation == "silu" || activation == "swish", "hidden_act", "\"silu\"");
  params.require_absent("sliding_window", "every layer has full attention");
  params.require_absent("attnres_block_size", "attention residuals are not computed here");
  config.rope.base = read_hf_rope(params, "rope_theta", nullptr, 1).base;
  Choice model = model_factory().choice();
  model.pick("transformer");
  model.as<TransformerConfig>() = config;
  return model;
}

nlohmann::ordered_json write(const Choice& model) {
  require_form(model.name == "transformer", "a model of family " + model.name, kForm,
               "transformer");
  const auto& config = model.as<TransformerConfig>();
  require_form(!config.embedding_scale, "model.embedding_scale = true", kForm,
               "embeddings as they are");
  require_form(config.rope.base.has_value(), "model.rope.base = none", kForm, "rotary positions");
  require_form(config.rope.pairs == "halves", "model.rope.pairs = " + config.rope.pairs, kForm,
               "halves");
  require_form(config.rope.exponents == "standard",
               "model.rope.exponents = " + config.rope.exponents, kForm, "standard");
  require_form(config.rope.fraction == 1,
               "model.rope.fraction = " + number_text(config.rope.fraction), kForm,
               "heads rotated as a whole");
  require_form(!config.qkv_bias, "model.qkv_bias = true", kForm, "projections without biases");
  require_form(!config.qk_norm_eps,
               "model.qk_norm_eps = " + number_text(config.qk_norm_eps.value_or(0)), kForm,
               "no norms of heads");
  require_form(config.d_model % config.n_heads == 0,
               "model.d_model = " + std::to_string(config.d_model), kForm,
               "a multiple of n_heads (" + std::to_string(config.n_heads) + ")");
  return {{"vocab_size", config.vocab_size.value()},
          {"hidden_size", config.d_model},
          {"intermediate_size", config.ffn_dim},
          {"num_hidden_layers", config.n_layers},
          {"num_attention_heads", config.n_heads},
          {"num_key_value_heads", config.n_kv_heads.value_or(config.n_heads)},
          {"head_dim", config.head_dim},
          {"hidden_act", "silu"},
          {"rms_norm_eps", config.norm_eps},
          {"rope_theta", *config.rope.base},
          {"rope_scaling", nullptr},
          {"attention_bias", false},
          {"mlp_bias", false},
          {"tie_word_embeddings", config.tie_embeddings}};
}

}  // namespace

const HfForm& hf_llama() {
  static const HfForm form = {
      .name = kForm,
      .model_type = "llama",
      .architecture = "LlamaForCausalLM",
      .tied_head = "lm_head.weight",
      .table = "model.embed_tokens.weight",
      .read = read,
      .write = write,
      .tensors = [](const Choice& model) { return named_tensors(model, their_name); },
      .is_dead = [](const std::string& name) { return name.ends_with(".rotary_emb.inv_freq"); }};
  return form;
}

}  // namespace tandem
