#include "yoco/official_names.h"

#include "core/error.h"
#include "core/yaml_scalar.h"
#include "nn/gated_retention.h"
#include "nn/sliding_window_attention.h"

namespace tandem {
namespace {

const Renaming kNames[] = {
    {"embedding", "embed_tokens"},
    {"head", "output_projection"},
    {"final_norm", "layer_norm"},
    {"shared_kv.norm", "cross_decoder.kv_layer_norm"},
    {"shared_kv.k_proj", "cross_decoder.k_proj"},
    {"shared_kv.v_proj", "cross_decoder.v_proj"},
    {"mixer_norm", "mixer_layer_norm"},
    {"mixer.o_proj", "mixer.out_proj"},
    {"mixer.gate_proj", "mixer.gt_proj"},
    {"ffn_norm", "final_layer_norm"},  // of the layer: it stands before the feed-forward
    {"ffn.gate_proj", "ffn.fc1"},      // the branch that goes through SiLU
    {"ffn.up_proj", "ffn.gate"},       // the linear factor, whatever its name
    {"ffn.down_proj", "ffn.fc2"},
};

constexpr double kTemperature = 16;  // gate_logit_normalizer, a constant of the official code

void require(bool holds, const std::string& what, const std::string& form) {
  if (!holds)
    throw bad_usage(what + " cannot be written as an official YOCO model, which has " + form);
}

Choice mixer_of_official(OfficialParams& params, int64_t n_heads, int64_t head_dim) {
  if (!params.given("sliding_window")) {
    Choice mixer = mixer_choice("gated_retention");
    auto& retention = mixer.as<GatedRetentionConfig>();
    retention.n_heads = n_heads;
    retention.head_dim = head_dim;
    retention.temperature = params.positive_or("gate_logit_normalizer", kTemperature);
    return mixer;
  }
  Choice mixer = mixer_choice("sliding_window");
  auto& attention = mixer.as<SlidingWindowConfig>();
  attention.n_heads = n_heads;
  attention.head_dim = head_dim;
  try {
    attention.window = params.integer("sliding_window");
  } catch (const std::runtime_error&) {
    params.require(false, "sliding_window",
                   "null for gated retention or an integer >= 1: to the official code any other "
                   "value is a window without end");
  }
  return mixer;
}

void check_rope(const std::string& decoder, const RopeConfig& rope) {
  require(rope.base.has_value(), "rope.base = none of the " + decoder, "rotary positions");
  require(rope.pairs == "interleaved", "rope.pairs = " + rope.pairs + " of the " + decoder,
          "interleaved");
  require(rope.exponents == "inclusive",
          "rope.exponents = " + rope.exponents + " of the " + decoder, "inclusive");
}

/// Adds what params.json says of the self-decoder's mixer.
void add_mixer(const Choice& mixer, int64_t d_model, nlohmann::ordered_json& params) {
  const auto add_heads = [&](int64_t n_heads, int64_t head_dim) {
    require(
        n_heads * head_dim == d_model,
        "a self-decoder of " + std::to_string(n_heads) + " heads of " + std::to_string(head_dim),
        "n_heads * head_dim = d_model (" + std::to_string(d_model) + ")");
    params["n_self_heads"] = n_heads;
  };
  if (mixer.name == "gated_retention") {
    const auto& retention = mixer.as<GatedRetentionConfig>();
    require(retention.temperature == kTemperature,
            "temperature = " + number_text(retention.temperature), number_text(kTemperature));
    add_heads(retention.n_heads, retention.head_dim);
    return;
  }
  require(mixer.name == "sliding_window", "mixer " + mixer.name,
          "gated_retention or sliding_window");
  const auto& attention = mixer.as<SlidingWindowConfig>();
  require(attention.n_kv_heads.value_or(attention.n_heads) == attention.n_heads,
          "a sliding window with n_kv_heads = " +
              std::to_string(attention.n_kv_heads.value_or(attention.n_heads)),
          "as many as n_heads (" + std::to_string(attention.n_heads) + ")");
  require(!attention.qkv_bias, "a sliding window with qkv_bias = true",
          "projections without biases");
  require(!attention.qk_norm_eps,
          "a sliding window with qk_norm_eps = " + number_text(attention.qk_norm_eps.value_or(0)),
          "no norms of heads");
  add_heads(attention.n_heads, attention.head_dim);
  params["sliding_window"] = attention.window;
}

}  // namespace

std::string official_yoco_name(const std::string& ours) { return renamed(ours, kNames); }

YocoConfig yoco_of_official(OfficialParams& params) {
  YocoConfig config;
  config.vocab_size = params.integer("vocab_size");
  config.d_model = params.integer("dim");
  config.ffn_dim = params.integer("hidden_dim");
  config.norm_eps = params.positive_or("norm_eps", 1e-5);
  config.rope.base = params.positive_or("rope_theta", 10000);
  const int64_t n_layers = params.integer("n_layers");
  params.require(n_layers % 2 == 0, "n_layers", "an even number, half of them in each decoder");
  const auto heads = [&](const char* key) {
    const int64_t n = params.integer(key);
    params.require(
        config.d_model % (2 * n) == 0, key,
        "a divisor of dim (" + std::to_string(config.d_model) + ") that leaves even heads");
    return n;
  };
  const int64_t n_self_heads = heads("n_self_heads");
  config.self_decoder.n_layers = n_layers / 2;
  config.self_decoder.mixers = {
      mixer_of_official(params, n_self_heads, config.d_model / n_self_heads)};
  auto& cross = config.cross_decoder;
  cross.n_layers = n_layers / 2;
  cross.n_heads = heads("n_attn_heads");
  cross.n_kv_heads = params.integer_or("n_attn_kv_heads", cross.n_heads);
  params.require(cross.n_heads % *cross.n_kv_heads == 0, "n_attn_heads",
                 "a multiple of n_attn_kv_heads (" + std::to_string(*cross.n_kv_heads) + ")");
  cross.head_dim = config.d_model / cross.n_heads;
  params.ignore({"model", "max_batch_size", "max_seq_len", "model_parallel_size",
                 "gate_logit_normalizer", "chunk_size"});
  return config;
}

nlohmann::ordered_json official_params_of(const YocoConfig& config) {
  const auto& self = config.self_decoder;
  const auto& cross = config.cross_decoder;
  require(config.embedding_scale, "model.embedding_scale = false",
          "embeddings times the root of d_model");
  const RopeConfig self_rope = resolved_rope(self.rope, config.rope),
                   cross_rope = resolved_rope(cross.rope, config.rope);
  check_rope("self-decoder", self_rope);
  check_rope("cross-decoder", cross_rope);
  require(
      self_rope.base == cross_rope.base,
      "two rope bases, " + number_text(*self_rope.base) + " and " + number_text(*cross_rope.base),
      "one");
  require(self.n_layers == cross.n_layers,
          std::to_string(self.n_layers) + " self and " + std::to_string(cross.n_layers) +
              " cross layers",
          "as many of each");
  require(cross.input == "self_decoder", "cross_decoder.input = " + cross.input, "self_decoder");
  require(!cross.qkv_bias, "cross_decoder.qkv_bias = true", "projections without biases");
  require(!cross.q_norm_eps,
          "cross_decoder.q_norm_eps = " + number_text(cross.q_norm_eps.value_or(0)),
          "no norms of heads");
  require(cross.n_heads * cross.head_dim == config.d_model,
          "a cross-decoder of " + std::to_string(cross.n_heads) + " heads of " +
              std::to_string(cross.head_dim),
          "n_heads * head_dim = d_model (" + std::to_string(config.d_model) + ")");
  nlohmann::ordered_json params = {{"dim", config.d_model},
                                   {"n_layers", self.n_layers + cross.n_layers},
                                   {"hidden_dim", config.ffn_dim}};
  add_mixer(self.mixers[0], config.d_model, params);
  for (const auto& mixer : self.mixers) {
    nlohmann::ordered_json other = params;
    add_mixer(mixer, config.d_model, other);
    require(other == params && mixer.name == self.mixers[0].name,
            "a self-decoder of several mixers", "the same in every layer");
  }
  params["n_attn_heads"] = cross.n_heads;
  params["n_attn_kv_heads"] = cross.n_kv_heads.value_or(cross.n_heads);
  params["vocab_size"] = config.vocab_size.value();
  params["norm_eps"] = config.norm_eps;
  params["rope_theta"] = *self_rope.base;
  return params;
}

}  // namespace tandem
