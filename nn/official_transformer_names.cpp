#include "nn/official_transformer_names.h"

#include "core/error.h"
#include "core/yaml_scalar.h"

namespace tandem {
namespace {

const Renaming kNames[] = {
    {"embedding", "tok_embeddings"},
    {"head", "output"},
    {"final_norm", "norm"},
    {"mixer_norm", "attention_norm"},
    {"mixer.q_proj", "attention.wq"},
    {"mixer.k_proj", "attention.wk"},
    {"mixer.v_proj", "attention.wv"},
    {"mixer.o_proj", "attention.wo"},
    {"ffn.gate_proj", "feed_forward.w1"},  // the branch that goes through SiLU
    {"ffn.up_proj", "feed_forward.w3"},
    {"ffn.down_proj", "feed_forward.w2"},
};

void require(bool holds, const std::string& what, const std::string& form) {
  if (!holds)
    throw bad_usage(what + " cannot be written as an official baseline, which has " + form);
}

}  // namespace

std::string official_transformer_name(const std::string& ours) { return renamed(ours, kNames); }

TransformerConfig transformer_of_official(OfficialParams& params) {
  TransformerConfig config;
  config.vocab_size = params.integer("vocab_size");
  config.d_model = params.integer("dim");
  config.ffn_dim = params.integer("hidden_dim");
  config.n_layers = params.integer("n_layers");
  config.n_heads = params.integer("n_heads");
  config.n_kv_heads = params.integer_or("n_kv_heads", config.n_heads);
  params.require(config.n_heads % *config.n_kv_heads == 0, "n_heads",
                 "a multiple of n_kv_heads (" + std::to_string(*config.n_kv_heads) + ")");
  config.head_dim = params.integer("head_dim");
  params.require(config.head_dim % 2 == 0, "head_dim", "an even number");
  config.norm_eps = params.positive("norm_eps");  // the official code has no default
  config.rope.base = params.positive_or("rope_theta", 10000);
  if (params.given("sliding_window"))
    params.require(false, "sliding_window", "null: the transformer family has full attention only");
  params.ignore({"model", "max_batch_size", "max_seq_len", "model_parallel_size"});
  return config;
}

nlohmann::ordered_json official_params_of(const TransformerConfig& config) {
  require(!config.embedding_scale, "model.embedding_scale = true", "embeddings as they are");
  require(config.rope.base.has_value(), "model.rope.base = none", "rotary positions");
  require(config.rope.pairs == "halves", "model.rope.pairs = " + config.rope.pairs, "halves");
  require(config.rope.exponents == "standard", "model.rope.exponents = " + config.rope.exponents,
          "standard");
  require(config.rope.fraction == 1, "model.rope.fraction = " + number_text(config.rope.fraction),
          "heads rotated as a whole");
  require(!config.qkv_bias, "model.qkv_bias = true", "projections without biases");
  require(!config.qk_norm_eps, "model.qk_norm_eps = " + number_text(config.qk_norm_eps.value_or(0)),
          "no norms of heads");
  return {
      {"dim", config.d_model},          {"n_layers", config.n_layers},
      {"head_dim", config.head_dim},    {"hidden_dim", config.ffn_dim},
      {"n_heads", config.n_heads},      {"n_kv_heads", config.n_kv_heads.value_or(config.n_heads)},
      {"norm_eps", config.norm_eps},    {"vocab_size", config.vocab_size.value()},
      {"rope_theta", *config.rope.base}};
}

}  // namespace tandem
