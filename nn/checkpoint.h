#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/manifest.h"
#include "core/safetensors.h"
#include "nn/parameter.h"

// A checkpoint is one folder: manifest.json (core/manifest.h), config.yaml, state.json, the tokenizer's
// model under a name that tells its kind (tokenizer.model, tokenizer.json, cl100k_base.tiktoken; absent for bytes), model.safetensors, and optimizer-K-of-N.safetensors when it was written by training.
// Weights are the float32 masters under their public names. It is written as NAME.partial with
// every file fsynced, manifest.json last (size and CRC32C of every file and tensor, SHA-256 of the
// manifest itself), then renamed. Nothing here knows a model class.

namespace tandem {

/// Weights of this prefix belong to no model: an import keeps them for an export, and nothing loads them.
inline constexpr const char* kUnusedPrefix = "unused.";

/// A piece of an optimizer tensor: elements [begin, end) of the flattened global parameter.
struct OptimizerPiece {
  std::string name;       // "exp_avg.NAME" or "exp_avg_sq.NAME"
  std::string parameter;  // NAME
  std::vector<int64_t> global_shape;
  int64_t begin = 0, end = 0;
  Tensor data;  // [end - begin] float32
};

/// What one checkpoint holds. Tensors are on the CPU.
struct CheckpointContents {
  int64_t step = 0;
  std::vector<std::pair<std::string, Tensor>> weights;  // float32, tied weights once
  std::vector<OptimizerPiece> optimizer;                // empty: weights only
  std::string config_yaml;
  nlohmann::ordered_json state;  // state.json
  std::string tokenizer_model;   // Tokenizer::model_bytes(); empty = none
  std::string tokenizer_file = "tokenizer.model";  // Tokenizer::file_name()
};

/// Writes FOLDER as described above and reads it back before it gets its name; a reader sees a
/// whole checkpoint or none. Throws cannot_write and leaves no FOLDER behind. FOLDER must not
/// exist.
void write_checkpoint(const std::string& folder, const CheckpointContents& contents);

/// A checkpoint that was opened and whose manifest verified.
class Checkpoint {
 public:
  /// Checks the manifest's own SHA-256 and every file's size. Throws bad_file naming the file.
  explicit Checkpoint(std::string folder);
  /// Reads all data and checks every CRC32C; throws bad_file naming file and tensor.
  void verify() const;
  int64_t step() const { return manifest_.step; }
  const std::string& folder() const { return folder_; }
  /// These three check the CRC32C of the file they read; they throw bad_file naming it.
  std::string config_yaml() const;
  nlohmann::ordered_json state() const;
  /// Path of the tokenizer's model, or "bytes" where there is none.
  std::string tokenizer() const;
  /// Copies weights into `module`'s parameters (which have storage), casting. Names and shapes must
  /// match exactly; throws bad_file with the first missing, unknown or misshapen name. Every
  /// tensor's CRC32C is checked as it is read.
  void load_weights(torch::nn::Module& module) const;
  /// One weight as float32 on the CPU.
  Tensor weight(const std::string& name) const;
  std::vector<std::string> weight_names() const;
  /// Fills `out` ([n] float32) with elements [begin, begin + n) of optimizer tensor `name`, from
  /// whichever pieces hold them.
  void load_optimizer(const std::string& name, int64_t begin, Tensor& out) const;
  bool has_optimizer() const;

 private:
  std::string read_checked(const std::string& name) const;
  std::string folder_;
  Manifest manifest_;
};

/// PATH is a checkpoint folder, or a run folder (then its newest checkpoint that verifies and is of
/// the step its name says; others are named in a warning). Throws bad_file when there is none.
std::string find_checkpoint(const std::string& path);

/// Steps of the complete checkpoints of a run folder, ascending; folder names are step-%08d.
std::vector<int64_t> checkpoint_steps(const std::string& run_folder);
std::string checkpoint_folder(const std::string& run_folder, int64_t step);

}  // namespace tandem
