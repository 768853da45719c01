#pragma once
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "cli/build_model.h"
#include "core/config_node.h"
#include "tests/nn/helpers.h"

// A small model of every kind, with sizes that divide nothing evenly.

namespace tandem {

struct TinyModel {
  std::string name;
  std::string yaml;  // of the model section
};

inline const std::vector<TinyModel>& tiny_models() {
  static const std::vector<TinyModel> models = {
      {"YocoGatedRetention",
       "{family: yoco, vocab_size: 53, d_model: 22, ffn_dim: 29, "
       "self_decoder: {n_layers: 2, mixers: [{name: gated_retention, n_heads: 3, head_dim: 10, chunk: 7}]}, "
       "cross_decoder: {n_layers: 2, n_heads: 6, n_kv_heads: 2, head_dim: 6}}"},
      {"YocoSlidingWindow",
       "{family: yoco, vocab_size: 53, tie_embeddings: true, d_model: 22, ffn_dim: 29, "
       "self_decoder: {n_layers: 2, mixers: [{name: sliding_window, n_heads: 4, n_kv_heads: 2, head_dim: 6, window: 5}]}, "
       "cross_decoder: {n_layers: 1, n_heads: 3, head_dim: 8}}"},
      {"YocoMixed",
       "{family: yoco, vocab_size: 53, d_model: 22, ffn_dim: 29, norm_eps: 1e-3, rope: {base: 500}, "
       "self_decoder: {n_layers: 3, rope: {base: none}, mixers: [{name: gated_retention, n_heads: 2, head_dim: 6, chunk: 4}, "
       "{name: sliding_window, n_heads: 2, head_dim: 10, window: 3}]}, "
       "cross_decoder: {n_layers: 1, n_heads: 4, n_kv_heads: 1, head_dim: 6, rope: {pairs: halves}}}"},
      {"YocoUnstacked",
       "{family: yoco, vocab_size: 53, d_model: 22, ffn_dim: 29, "
       "self_decoder: {n_layers: 2, mixers: [{name: gated_retention, n_heads: 3, head_dim: 10, chunk: 7}]}, "
       "cross_decoder: {n_layers: 3, n_heads: 6, n_kv_heads: 3, head_dim: 6, input: embeddings}}"},
      {"YocoWithoutSelfDecoder",
       "{family: yoco, vocab_size: 53, d_model: 22, ffn_dim: 29, self_decoder: {n_layers: 0}, "
       "cross_decoder: {n_layers: 2, n_heads: 4, n_kv_heads: 2, head_dim: 6}}"},
      {"YocoNormsAndBiases",
       "{family: yoco, vocab_size: 53, d_model: 22, ffn_dim: 29, "
       "self_decoder: {n_layers: 2, mixers: [{name: sliding_window, n_heads: 4, n_kv_heads: 2, head_dim: 6, window: 5, qkv_bias: true, "
       "qk_norm_eps: 1e-3}]}, "
       "cross_decoder: {n_layers: 2, n_heads: 6, n_kv_heads: 2, head_dim: 6, qkv_bias: true, q_norm_eps: 1e-2}}"},
      {"RetNet",
       "{family: hybrid, vocab_size: 53, tie_embeddings: true, d_model: 22, ffn_dim: 29, n_layers: 2, "
       "mixers: [{name: retention, n_heads: 3, head_dim: 10, chunk: 7}]}"},
      {"InterleavedHybrid",
       "{family: hybrid, vocab_size: 53, d_model: 22, ffn_dim: 29, n_layers: 4, mixers: [{name: gated_retention, n_heads: 2, head_dim: 6, chunk: 4}, "
       "{name: full_attention, n_heads: 4, n_kv_heads: 2, head_dim: 6}, {name: sliding_window, n_heads: 2, head_dim: 10, window: 3}]}"},
      {"Transformer",
       "{family: transformer, vocab_size: 53, d_model: 22, ffn_dim: 29, n_layers: 3, n_heads: 4, n_kv_heads: 2, head_dim: 6}"},
      {"TransformerNormsAndBiases",
       "{family: transformer, vocab_size: 53, tie_embeddings: true, d_model: 22, ffn_dim: 29, n_layers: 2, n_heads: 4, n_kv_heads: 2, head_dim: 6, "
       "qkv_bias: true, qk_norm_eps: 1e-3}"},
      {"GptNeox",
       "{family: gpt_neox, vocab_size: 53, d_model: 21, ffn_dim: 29, n_layers: 2, n_heads: 3, head_dim: 10, rope: {fraction: 0.4}}"},
      {"Gpt2",
       "{family: gpt_neox, vocab_size: 53, tie_embeddings: true, max_positions: 47, d_model: 24, ffn_dim: 29, n_layers: 2, n_heads: 3, "
       "rope: {base: none}, parallel_residual: false, activation: gelu_tanh}"},
      {"BlockLookupPrefix",
       "{family: block_transformer, vocab_size: 53, block_length: 4, embedder: {kind: lookup, d_embed: 6}, "
       "block_decoder: {stack: gpt_neox, d_model: 24, ffn_dim: 29, n_layers: 2, n_heads: 3}, "
       "token_decoder: {kind: prefix, prefix_length: 2, stack: gpt_neox, d_model: 21, ffn_dim: 31, n_layers: 1, n_heads: 3, head_dim: 8}}"},
      {"BlockProjectionLlama",
       "{family: block_transformer, vocab_size: 53, block_length: 3, pad_documents: false, embedder: {kind: lookup, combine: projection, d_embed: 10}, "
       "block_decoder: {stack: transformer, d_model: 22, ffn_dim: 29, n_layers: 2, n_heads: 4, n_kv_heads: 2, head_dim: 6}, "
       "token_decoder: {kind: prefix, prefix_length: 3, stack: transformer, d_model: 18, ffn_dim: 31, n_layers: 2, n_heads: 3, head_dim: 6}}"},
      {"BlockYoco",
       "{family: block_transformer, vocab_size: 53, block_length: 2, embedder: {kind: lookup, d_embed: 11}, "
       "block_decoder: {stack: yoco, d_model: 22, ffn_dim: 29, self_decoder: {n_layers: 1, mixers: [{name: gated_retention, n_heads: 2, head_dim: 6, chunk: 4}]}, "
       "cross_decoder: {n_layers: 1, n_heads: 4, n_kv_heads: 2, head_dim: 6}}, "
       "token_decoder: {kind: summation, stack: gpt_neox, d_model: 18, ffn_dim: 31, n_layers: 1, n_heads: 3, head_dim: 8}}"},
      {"BlockEncoderCrossAttention",
       "{family: block_transformer, vocab_size: 53, block_length: 4, embedder: {kind: encoder, d_embed: 12, n_layers: 1, n_heads: 3, ffn_dim: 17, max_positions: 9}, "
       "block_decoder: {stack: gpt_neox, d_model: 20, ffn_dim: 29, n_layers: 1, n_heads: 2, head_dim: 8}, "
       "token_decoder: {kind: cross_attention, d_model: 14, ffn_dim: 19, n_layers: 2, n_heads: 3, head_dim: 6}}"},
      {"BlockClsSummation",
       "{family: block_transformer, vocab_size: 53, block_length: 3, embedder: {kind: cls, n_cls: 2, d_embed: 12, n_layers: 1, n_heads: 3, ffn_dim: 17, max_positions: 9}, "
       "block_decoder: {stack: yoco, d_model: 22, ffn_dim: 29, self_decoder: {n_layers: 1, mixers: [{name: sliding_window, n_heads: 2, head_dim: 6, window: 3}]}, "
       "cross_decoder: {n_layers: 1, n_heads: 2, head_dim: 6}}, "
       "token_decoder: {kind: summation, stack: transformer, d_model: 16, ffn_dim: 31, n_layers: 1, n_heads: 2, head_dim: 6}}"},
  };
  return models;
}

/// The model section `yaml` as a Choice.
inline Choice model_choice(const std::string& yaml) {
  struct Section {
    Choice model = model_factory().choice();
    void fields(ConfigReader& reader) { reader.choice("model", model); }
    void fields(Checker& checker) { checker.choice("model", model); }
  } section;
  read_config(parse_yaml("model: " + yaml + "\n", "test"), section);
  return section.model;
}

inline std::shared_ptr<LanguageModel> make_tiny_model(const std::string& yaml, torch::Dtype dtype = torch::kFloat64) {
  auto model = model_factory().build(model_choice(yaml));
  materialise_random(*model, /*seed=*/11, dtype);
  return model;
}

}  // namespace tandem
