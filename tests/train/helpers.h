#pragma once
#include <gtest/gtest.h>

#include <csignal>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "core/json_lines.h"
#include "core/random.h"
#include "data/token_file.h"
#include "data/token_file_writer.h"
#include "nn/checkpoint.h"
#include "nn/transformer.h"
#include "tests/data/temp_folder.h"
#include "train/trainer.h"

// A run small enough to train in a test: a transformer of two layers on bytes.

namespace tandem {

/// One family, as cli/build_model has several.
inline ModelFactory tiny_factory() {
  static const std::vector<Option> options = {option<TransformerConfig>("transformer")};
  return {.options = options,
          .build =
              [](const Choice& model) { return make_transformer(model.as<TransformerConfig>()); },
          .set_vocab_size =
              [](Choice& model, int64_t vocab_size) {
                auto& config = model.as<TransformerConfig>();
                if (!config.vocab_size) config.vocab_size = vocab_size;
              },
          .uptrain = {}};
}

/// Raises a signal once, while the run is being set up.
inline ModelFactory raising_factory(int number) {
  ModelFactory factory = tiny_factory();
  factory.build = [build = factory.build, number,
                   raised = std::make_shared<bool>(false)](const Choice& model) {
    if (!std::exchange(*raised, true)) std::raise(number);
    return build(model);
  };
  return factory;
}

/// Documents of 20 to 59 tokens, each counting up from somewhere: easy to learn, and every document
/// is another one.
inline void write_tokens(const std::string& prefix, uint64_t seed, int64_t documents) {
  TokenFileWriter writer(prefix, 258);
  const RandomStream random(seed);
  for (uint64_t d = 0; d < static_cast<uint64_t>(documents); ++d) {
    std::vector<int32_t> tokens(20 + random.below(2 * d, 40));
    const auto first = static_cast<int32_t>(random.below(2 * d + 1, 200));
    for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = first + static_cast<int32_t>(i % 50);
    writer.add_document(tokens);
  }
  writer.publish();
}

/// The config of a run on FOLDER/train and FOLDER/valid, which are written when they are missing.
inline std::string tiny_yaml(const std::string& folder) {
  if (!exists(folder + "/train.bin")) write_tokens(folder + "/train", 1, 40);
  if (!exists(folder + "/valid.bin")) write_tokens(folder + "/valid", 2, 5);
  return R"(model: {family: transformer, d_model: 16, ffn_dim: 24, n_layers: 2, n_heads: 2, head_dim: 8}
data:
  tokenizer: bytes
  train: [{path: )" +
         folder + R"(/train, weight: 1}]
  validation: [{path: )" +
         folder + R"(/valid}]
training: {context_length: 13, tokens_per_step: 78, micro_batch_size: 2, steps: 9, seed: 5, threads: 1}
optimizer: {lr: 0.01, weight_decay: 0.1}
lr_schedule: {name: cosine, warmup_steps: 2, steps: 9, min_lr: 0.001}
checkpoint: {every: 2, keep: 3}
metrics: {log_every: 4}
validation: {every: 4, tokens: 60}
)";
}

inline TrainConfig tiny_config(const std::string& folder,
                               const std::vector<std::string>& words = {},
                               const ModelFactory& factory = tiny_factory()) {
  ConfigNode root = parse_yaml(tiny_yaml(folder), "tiny.yaml");
  for (const auto& word : words) apply_override(root, word);
  TrainConfig config = make_train_config(factory);
  read_config(root, config);
  return config;
}

inline TrainOutcome train_tiny(const TempFolder& folder, const std::string& run,
                               const std::vector<std::string>& words = {},
                               std::optional<int64_t> stop_at = {},
                               const ModelFactory& factory = tiny_factory()) {
  TrainOptions options;
  options.run_folder = folder / run;
  options.stop_at = stop_at;
  return train(tiny_config(folder.path(), words, factory), factory, options);
}

/// The lines of a run's metrics.jsonl without what depends on the clock.
inline std::vector<nlohmann::ordered_json> metrics_of(const std::string& run_folder) {
  std::vector<nlohmann::ordered_json> lines;
  const std::string text = read_text(run_folder + "/metrics.jsonl");
  for (size_t begin = 0, end; (end = text.find('\n', begin)) != text.npos; begin = end + 1) {
    auto line = parse_json(std::string_view(text).substr(begin, end - begin));
    for (const char* clock : {"seconds", "data_seconds", "save_seconds", "wait_seconds"}) line.erase(clock);
    lines.push_back(std::move(line));
  }
  return lines;
}

/// Every file of a folder with its bytes.
inline std::map<std::string, std::string> bytes_of_folder(const std::string& folder) {
  std::map<std::string, std::string> files;
  for (const auto& name : list_directory(folder)) files[name] = file_bytes(join_path(folder, name));
  return files;
}

}  // namespace tandem
