// GPT-NeoX and Pythia as transformers keeps them. Query, key and value are one tensor whose rows
// are [heads, 3, head_dim], head after head. Rotary pairs are halves of the first rotary_pct of
// each head, as here: nothing is permuted within a head.
#include "cli/build_model.h"
#include "cli/hf_form.h"
#include "core/yaml_scalar.h"
#include "nn/gpt_neox.h"

namespace tandem {
namespace {

const Renaming kNames[] = {
    // ours, theirs behind "gpt_neox."; the head stands outside
    {"embedding", "embed_in"},
    {"mixer_norm", "input_layernorm"},
    {"mixer.q_proj", "attention.query_key_value"},  // with k_proj and v_proj
    {"mixer.o_proj", "attention.dense"},
    {"ffn_norm", "post_attention_layernorm"},
    {"ffn.up_proj", "mlp.dense_h_to_4h"},
    {"ffn.down_proj", "mlp.dense_4h_to_h"},
    {"final_norm", "final_layer_norm"},
};
constexpr const char* kForm = "hf-gpt-neox";
constexpr std::string_view kQuery = ".q_proj.";

std::string their_name(const std::string& ours) {
  return ours == "head.weight" ? "embed_out.weight" : "gpt_neox." + renamed(ours, kNames);
}

std::vector<FormTensor> tensors_of(const Choice& model) {
  std::vector<FormTensor> tensors;
  for (auto& tensor : named_tensors(model, their_name)) {
    const std::string ours = tensor.ours.front();
    if (ours.find(".k_proj.") != ours.npos || ours.find(".v_proj.") != ours.npos) continue;
    if (const size_t at = ours.find(kQuery); at != ours.npos) {
      tensor.n_heads = model.as<GptNeoxConfig>().n_heads;
      tensor.shape[0] *= 3;
      for (const char* projection : {".k_proj.", ".v_proj."})
        tensor.ours.push_back(std::string(ours).replace(at, kQuery.size(), projection));
    }
    tensors.push_back(std::move(tensor));
  }
  return tensors;
}

Choice read(OfficialParams& params) {
  GptNeoxConfig config;
  config.vocab_size = params.integer("vocab_size");
  config.d_model = params.integer("hidden_size");
  config.ffn_dim = params.integer("intermediate_size");
  config.n_layers = read_layers(params, "num_hidden_layers");
  config.n_heads = params.integer("num_attention_heads");
  params.require(config.d_model % (2 * config.n_heads) == 0, "hidden_size",
                 "a multiple of num_attention_heads (" + std::to_string(config.n_heads) +
                     ") that leaves even heads");
  config.norm_eps = params.positive_or("layer_norm_eps", 1e-5);
  config.parallel_residual = params.flag_or("use_parallel_residual", true);
  config.tie_embeddings = params.flag_or("tie_word_embeddings", false);
  params.require(params.flag_or("attention_bias", true), "attention_bias",
                 "true: the projections have biases");
  const std::string activation = params.text_or("hidden_act", "gelu");
  const bool is_tanh =
      activation == "gelu_new" || activation == "gelu_fast" || activation == "gelu_pytorch_tanh";
  params.require(is_tanh || activation == "gelu", "hidden_act",
                 "\"gelu\", \"gelu_new\", \"gelu_fast\" or \"gelu_pytorch_tanh\"");
  config.activation = is_tanh ? "gelu_tanh" : "gelu";
  params.require_absent("sliding_window", "every layer has full attention");
  params.require_absent("attnres_block_size", "attention residuals are not computed here");
  const HfRope rope = read_hf_rope(params, "rotary_emb_base", "rotary_pct", 0.25);
  config.rope.base = rope.base;
  config.rope.fraction = rope.fraction;
  const int64_t rotated = rotated_channels(config.rope, config.channels_per_head());
  if (rotated < 2 || rotated % 2 != 0) {
    throw std::runtime_error("the rotated part of a head is " + std::to_string(rotated) + " of " +
                             std::to_string(config.channels_per_head()) +
                             " channels, expected an even number, at least 2");
  }
  Choice model = model_factory().choice();
  model.pick("gpt_neox");
  model.as<GptNeoxConfig>() = config;
  return model;
}

nlohmann::ordered_json write(const Choice& model) {
  require_form(model.name == "gpt_neox", "a model of family " + model.name, kForm, "gpt_neox");
  const auto& config = model.as<GptNeoxConfig>();
  require_form(!config.max_positions, "model.max_positions", kForm, "rotary positions only");
  require_form(config.rope.base.has_value(), "model.rope.base = none", kForm, "rotary positions");
  require_form(config.rope.pairs == "halves", "model.rope.pairs = " + config.rope.pairs, kForm,
               "halves");
  require_form(config.rope.exponents == "standard",
               "model.rope.exponents = " + config.rope.exponents, kForm, "standard");
  require_form(
      config.n_heads * config.channels_per_head() == config.d_model,
      std::to_string(config.n_heads) + " heads of " + std::to_string(config.channels_per_head()),
      kForm, "n_heads * head_dim = d_model (" + std::to_string(config.d_model) + ")");
  return {{"vocab_size", config.vocab_size.value()},
          {"hidden_size", config.d_model},
          {"intermediate_size", config.ffn_dim},
          {"num_hidden_layers", config.n_layers},
          {"num_attention_heads", config.n_heads},
          {"hidden_act", config.activation == "gelu" ? "gelu" : "gelu_new"},
          {"layer_norm_eps", config.norm_eps},
          {"rotary_pct", config.rope.fraction},
          {"rotary_emb_base", *config.rope.base},
          {"rope_scaling", nullptr},
          {"use_parallel_residual", config.parallel_residual},
          {"attention_bias", true},
          {"tie_word_embeddings", config.tie_embeddings}};
}

bool is_dead(const std::string& name) {
  return name.ends_with(".attention.bias") || name.ends_with(".attention.masked_bias") ||
         name.ends_with(".rotary_emb.inv_freq");
}

}  // namespace

const HfForm& hf_gpt_neox() {
  static const HfForm form = {.name = kForm,
                              .model_type = "gpt_neox",
                              .architecture = "GPTNeoXForCausalLM",
                              .tied_head = "embed_out.weight",
                              .table = "gpt_neox.embed_in.weight",
                              .read = read,
                              .write = write,
                              .tensors = tensors_of,
                              .is_dead = is_dead};
  return form;
}

}  // namespace tandem
