// YOCO as flash-linear-attention keeps it. Each decoder's attention has a section of its own in
// config.json, and each section's rotary keys count for its own half. Rotary pairs of retention,
// shared keys and cross queries are interleaved, those of sliding windows halves with standard
// exponents; both are settings here (self_decoder.rope, cross_decoder.rope), so that no rows are
// permuted.
#include "cli/build_model.h"
#include "cli/hf_form.h"
#include "core/yaml_scalar.h"
#include "nn/gated_retention.h"
#include "nn/sliding_window_attention.h"
#include "yoco/yoco.h"

namespace tandem {
namespace {

const Renaming kNames[] = {
    // ours, theirs
    {"embedding", "embeddings"},
    {"mixer_norm", "attn_norm"},
    {"mixer.q_proj", "attn.q_proj"},
    {"mixer.k_proj", "attn.k_proj"},
    {"mixer.v_proj", "attn.v_proj"},
    {"mixer.g_proj", "attn.g_proj"},
    {"mixer.gate_proj", "attn.gk_proj"},  // the decay's
    {"mixer.o_proj", "attn.o_proj"},
    {"mixer.q_norm", "attn.q_norm"},  // of the cross-decoder; keys have none
    {"ffn_norm", "mlp_norm"},
    {"ffn.gate_proj", "mlp.gate_proj"},
    {"ffn.up_proj", "mlp.up_proj"},
    {"ffn.down_proj", "mlp.down_proj"},
    {"shared_kv.norm", "shared_kv_builder.kv_norm"},
    {"shared_kv.k_proj", "shared_kv_builder.k_proj"},
    {"shared_kv.v_proj", "shared_kv_builder.v_proj"},
    {"final_norm", "norm"},
};
const Renaming kDecoders[] = {{"self_decoder.layers.", "self_layers."},
                              {"cross_decoder.layers.", "cross_layers."}};
constexpr const char* kForm = "fla-yoco";
constexpr double kQueryNormEps = 1e-5;  // whatever norm_eps says
constexpr const char *kSelf = "self_decoder_attn", *kCross = "cross_decoder_attn";

std::string their_name(const std::string& ours) {
  if (ours == "head.weight") return "lm_head.weight";
  std::string name = renamed(ours, kNames);
  for (const auto& decoder : kDecoders) {
    const std::string prefix = decoder.ours;
    if (name.starts_with(prefix)) name = decoder.theirs + name.substr(prefix.size());
  }
  return "model." + name;
}

// ---- reading

/// The exponents of a section; `fla` where it says nothing.
std::string exponents_of(OfficialParams& section) {
  const std::string convention = section.text_or("rope_inv_freq", "fla");
  section.require(convention == "fla" || convention == "yoco", "rope_inv_freq",
                  "\"fla\" or \"yoco\"");
  return convention == "yoco" ? "inclusive" : "standard";
}

/// Heads of even width that divide the model evenly.
int64_t heads_of(OfficialParams& section, int64_t absent, int64_t d_model) {
  const int64_t n = section.integer_or("num_heads", absent);
  if (d_model % (2 * n) != 0) {
    throw std::runtime_error("num_heads = " + std::to_string(n) +
                             ", expected a divisor of hidden_size (" + std::to_string(d_model) +
                             ") that leaves even heads");
  }
  return n;
}

void read_self_decoder(OfficialParams& section, YocoConfig& config) {
  const std::string type = section.text_or("type", "gated_deltanet");
  if (type != "gated_retention" && type != "swa")
    throw std::runtime_error("type = \"" + type + "\", expected \"gated_retention\" or \"swa\"");
  const int64_t n_heads = heads_of(section, 6, config.d_model);
  DecoderRopeConfig rope;
  rope.base = section.positive_or("rope_theta", 10000);
  rope.exponents = exponents_of(section);
  if (type == "gated_retention") {
    Choice mixer = mixer_choice("gated_retention");
    auto& retention = mixer.as<GatedRetentionConfig>();
    retention.n_heads = n_heads;
    retention.head_dim = config.d_model / n_heads;
    retention.temperature = section.positive_or("gate_logit_normalizer", 16);
    rope.pairs = "interleaved";
    config.self_decoder.mixers = {mixer};
  } else {
    Choice mixer = mixer_choice("sliding_window");
    auto& attention = mixer.as<SlidingWindowConfig>();
    attention.n_heads = n_heads;
    attention.n_kv_heads = section.integer_or("num_v_heads", n_heads);
    section.require(n_heads % *attention.n_kv_heads == 0, "num_v_heads",
                    "a divisor of num_heads (" + std::to_string(n_heads) + ")");
    attention.head_dim = config.d_model / n_heads;
    attention.window = section.integer("window_size");
    attention.qkv_bias = section.flag_or("qkv_bias", false);
    rope.pairs = "halves";
    rope.exponents = "standard";  // whatever the section says
    config.self_decoder.mixers = {mixer};
  }
  config.self_decoder.rope = rope;
  section.ignore({"mode", "use_gate", "expand_v", "use_short_conv", "conv_size", "head_dim",
                  "num_v_heads", "window_size", "qkv_bias", "gate_logit_normalizer",
                  "allow_neg_eigval"});
}

void read_cross_decoder(OfficialParams& section, YocoConfig& config) {
  auto& cross = config.cross_decoder;
  cross.n_heads = heads_of(section, 32, config.d_model);
  cross.head_dim = config.d_model / cross.n_heads;
  cross.n_kv_heads = section.integer_or("num_kv_heads", cross.n_heads);
  section.require(cross.n_heads % *cross.n_kv_heads == 0, "num_kv_heads",
                  "a divisor of num_heads (" + std::to_string(cross.n_heads) + ")");
  cross.qkv_bias = section.flag_or("qkv_bias", false);
  if (section.flag_or("qk_norm", false)) cross.q_norm_eps = kQueryNormEps;
  section.require_absent("window_size", "queries see all shared keys before them");
  DecoderRopeConfig rope;
  rope.base = section.positive_or("rope_theta", 10000);
  rope.pairs = "interleaved";
  rope.exponents = exponents_of(section);
  cross.rope = rope;
}

/// Reads the section `key` of `params`, with its name in front of what goes wrong and of keys that
/// nobody asked for.
void read_section(OfficialParams& params, const char* key, YocoConfig& config,
                  void (*read)(OfficialParams&, YocoConfig&)) {
  static const auto kEmpty = nlohmann::ordered_json::object();
  const auto* json = params.object(key);
  try {
    OfficialParams section(json ? *json : kEmpty);
    read(section, config);
    const auto unknown = section.not_asked_for();
    if (!unknown.empty()) throw std::runtime_error(unknown.front() + " is not known here");
  } catch (const std::runtime_error& error) {
    throw std::runtime_error(std::string(key) + "." + error.what());
  }
}

Choice read(OfficialParams& params) {
  YocoConfig config;
  config.vocab_size = params.integer_or("vocab_size", 32000);
  config.d_model = params.integer_or("hidden_size", 2048);
  const double ratio = params.positive_or("hidden_ratio", 4);
  const auto inner = static_cast<int64_t>(static_cast<double>(config.d_model) * ratio * 2 / 3);
  config.ffn_dim = params.integer_or("intermediate_size", (inner + 255) / 256 * 256);
  config.norm_eps = params.positive_or("norm_eps", 1e-6);
  config.tie_embeddings = params.flag_or("tie_word_embeddings", false);
  const std::string activation = params.text_or("hidden_act", "swish");
  params.require(activation == "swish" || activation == "silu", "hidden_act", "\"swish\"");
  params.require_absent("attnres_block_size", "attention residuals are not computed here");
  const int64_t n_layers =
      params.given("num_hidden_layers") ? read_layers(params, "num_hidden_layers") : 21;
  config.self_decoder.n_layers =
      params.given("num_self_decoder_layers") ? params.integer("num_self_decoder_layers", 0) : 10;
  config.cross_decoder.n_layers = n_layers - config.self_decoder.n_layers;
  if (config.cross_decoder.n_layers < 1) {
    throw std::runtime_error("num_hidden_layers = " + std::to_string(n_layers) +
                             ", expected more than num_self_decoder_layers (" +
                             std::to_string(config.self_decoder.n_layers) + ")");
  }
  read_section(params, kSelf, config, read_self_decoder);
  read_section(params, kCross, config, read_cross_decoder);
  params.ignore({"fuse_norm", "fuse_swiglu", "fuse_cross_entropy", "use_l2warp"});
  // What both decoders agree in is the model's.
  auto &self = config.self_decoder.rope, &cross = config.cross_decoder.rope;
  config.rope.base = cross->base;
  config.rope.pairs = cross->pairs;
  config.rope.exponents = cross->exponents;
  if (self->base == cross->base && self->pairs == cross->pairs &&
      self->exponents == cross->exponents)
    self.reset();
  cross.reset();
  Choice model = model_factory().choice();
  model.pick("yoco");
  model.as<YocoConfig>() = config;
  return model;
}

// ---- writing

std::string convention_of(const RopeConfig& rope, const std::string& decoder) {
  require_form(rope.pairs == "interleaved", "rope.pairs = " + rope.pairs + " of the " + decoder,
               kForm, "interleaved");
  return rope.exponents == "inclusive" ? "yoco" : "fla";
}

void require_width(const YocoConfig& config, int64_t n_heads, int64_t head_dim,
                   const std::string& decoder) {
  require_form(
      n_heads * head_dim == config.d_model,
      "a " + decoder + " of " + std::to_string(n_heads) + " heads of " + std::to_string(head_dim),
      kForm, "n_heads * head_dim = d_model (" + std::to_string(config.d_model) + ")");
}

nlohmann::ordered_json write_mixer(const YocoConfig& config, const Choice& mixer,
                                   const RopeConfig& rope) {
  if (mixer.name == "gated_retention") {
    const auto& retention = mixer.as<GatedRetentionConfig>();
    require_width(config, retention.n_heads, retention.head_dim, "self-decoder");
    return {{"type", "gated_retention"},
            {"num_heads", retention.n_heads},
            {"rope_theta", *rope.base},
            {"rope_inv_freq", convention_of(rope, "self-decoder")},
            {"gate_logit_normalizer", retention.temperature}};
  }
  require_form(mixer.name == "sliding_window", "mixer " + mixer.name, kForm,
               "gated_retention or sliding_window");
  const auto& attention = mixer.as<SlidingWindowConfig>();
  require_width(config, attention.n_heads, attention.head_dim, "self-decoder");
  require_form(
      rope.pairs == "halves" && rope.exponents == "standard",
      "a sliding window with rope.pairs = " + rope.pairs + ", rope.exponents = " + rope.exponents,
      kForm, "halves and standard there");
  require_form(
      !attention.qk_norm_eps,
      "a sliding window with qk_norm_eps = " + number_text(attention.qk_norm_eps.value_or(0)),
      kForm, "no norms of heads there");
  return {{"type", "swa"},
          {"num_heads", attention.n_heads},
          {"num_v_heads", attention.n_kv_heads.value_or(attention.n_heads)},
          {"window_size", attention.window},
          {"qkv_bias", attention.qkv_bias},
          {"rope_theta", *rope.base}};
}

nlohmann::ordered_json write(const Choice& model) {
  require_form(model.name == "yoco", "a model of family " + model.name, kForm, "yoco");
  const auto& config = model.as<YocoConfig>();
  const auto& self = config.self_decoder;
  const auto& cross = config.cross_decoder;
  require_form(config.embedding_scale, "model.embedding_scale = false", kForm,
               "embeddings times the root of d_model");
  require_form(cross.input == "self_decoder", "cross_decoder.input = " + cross.input, kForm,
               "self_decoder");
  require_form(cross.q_norm_eps.value_or(kQueryNormEps) == kQueryNormEps,
               "cross_decoder.q_norm_eps = " + number_text(cross.q_norm_eps.value_or(0)), kForm,
               number_text(kQueryNormEps));
  const RopeConfig self_rope = resolved_rope(self.rope, config.rope),
                   cross_rope = resolved_rope(cross.rope, config.rope);
  require_form(self_rope.base && cross_rope.base, "rope.base = none", kForm, "rotary positions");
  require_width(config, cross.n_heads, cross.head_dim, "cross-decoder");
  const auto mixer = write_mixer(config, self.mixers[0], self_rope);
  for (const auto& other : self.mixers) {
    require_form(write_mixer(config, other, self_rope) == mixer, "a self-decoder of several mixers",
                 kForm, "the same in every layer");
  }
  return {{"vocab_size", config.vocab_size.value()},
          {"hidden_size", config.d_model},
          {"intermediate_size", config.ffn_dim},
          {"num_hidden_layers", self.n_layers + cross.n_layers},
          {"num_self_decoder_layers", self.n_layers},
          {"hidden_act", "swish"},
          {"norm_eps", config.norm_eps},
          {"attnres_block_size", nullptr},
          {kSelf, mixer},
          {kCross,
           {{"num_heads", cross.n_heads},
            {"num_kv_heads", cross.n_kv_heads.value_or(cross.n_heads)},
            {"qkv_bias", cross.qkv_bias},
            {"qk_norm", cross.q_norm_eps.has_value()},
            {"rope_theta", *cross_rope.base},
            {"rope_inv_freq", convention_of(cross_rope, "cross-decoder")}}},
          {"tie_word_embeddings", config.tie_embeddings}};
}

}  // namespace

const HfForm& fla_yoco() {
  static const HfForm form = {
      .name = kForm,
      .model_type = "yoco",
      .architecture = "YOCOForCausalLM",
      .tied_head = "lm_head.weight",
      .table = "model.embeddings.weight",
      .read = read,
      .write = write,
      .tensors = [](const Choice& model) { return named_tensors(model, their_name); },
      .is_dead = [](const std::string&) { return false; }};
  return form;
}

}  // namespace tandem
