#pragma once
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "nn/checkpoint.h"
#include "tests/cli/tiny_models.h"

namespace tandem {

/// Writes a run's checkpoint of a model with random weights (those of make_tiny_model in float32)
/// and the byte tokenizer, or none; returns the run folder.
inline std::string write_tiny_run(const std::string& run_folder, const std::string& model_yaml,
                                  int64_t step = 7, int64_t context_length = 24,
                                  bool with_tokenizer = true) {
  CheckpointContents contents;
  contents.step = step;
  const auto model = make_tiny_model(model_yaml, torch::kFloat32);
  for (const auto& parameter : model->named_parameters()) {
    contents.weights.push_back(whole_piece("", parameter.key(), parameter.value().detach().clone()));
  }
  contents.config_yaml = "model: " + model_yaml +
                         (with_tokenizer ? "\ndata: {tokenizer: bytes}" : "") +
                         "\ntraining: {context_length: " + std::to_string(context_length) + "}\n";
  contents.state = {{"step", step}};
  write_checkpoint(checkpoint_folder(run_folder, step), contents);
  return run_folder;
}

struct Ran {
  int code = -1;
  std::string out, err;
};

/// Runs a command as `name arguments...` in this process. What it throws comes through.
inline Ran run_captured(int (*command)(int, const char* const*), const std::string& name,
                        const std::vector<std::string>& arguments) {
  std::vector<const char*> argv = {name.c_str()};
  for (const auto& argument : arguments) argv.push_back(argument.c_str());
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  Ran ran;
  try {
    ran.code = command(static_cast<int>(argv.size()), argv.data());
  } catch (...) {
    testing::internal::GetCapturedStdout();
    testing::internal::GetCapturedStderr();
    throw;
  }
  ran.out = testing::internal::GetCapturedStdout();
  ran.err = testing::internal::GetCapturedStderr();
  return ran;
}

/// A tiny YOCO over the byte tokenizer's vocabulary.
inline const char* const kTinyByteYoco =
    "{family: yoco, vocab_size: 259, d_model: 22, ffn_dim: 29, "
    "self_decoder: {n_layers: 2, mixers: [{name: gated_retention, n_heads: 3, head_dim: 10, chunk: "
    "7}]}, "
    "cross_decoder: {n_layers: 2, n_heads: 6, n_kv_heads: 2, head_dim: 6}}";

}  // namespace tandem
