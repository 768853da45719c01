#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "core/manifest.h"
#include "core/safetensors.h"
#include "nn/tensor_piece.h"

// A checkpoint is one folder: manifest.json (core/manifest.h), config.yaml, state.json, the tokenizer's
// model under a name that tells its kind (tokenizer.model, tokenizer.json, cl100k_base.tiktoken; absent for bytes), model.safetensors, and optimizer-K-of-N.safetensors when it was written by training.
// Weights are the float32 masters under their public names, whole: model.safetensors is the same whatever mesh wrote it. Each rank that holds moments writes them to an optimizer file of
// its own; which elements of which parameter they are stands in manifest.json, so that any mesh can read them. A checkpoint is written as NAME.partial with
// every file fsynced, manifest.json last (size and CRC32C of every file and tensor, SHA-256 of the
// manifest itself), then renamed. Nothing here knows a model class.

namespace tandem {

/// Weights of this prefix belong to no model: an import keeps them for an export, and nothing loads them.
inline constexpr const char* kUnusedPrefix = "unused.";

/// What one rank gives to a checkpoint. The pieces of a weight that all ranks give must be slices along one dimension and hold each element once: of ranks that hold the same, one gives it
/// (best is that each gives its share of it). Of a moment a rank gives one piece. All but the pieces is taken from rank 0.
struct CheckpointContents {
  int64_t step = 0;
  std::vector<TensorPiece> weights;    // tied weights once
  std::vector<TensorPiece> optimizer;  // none on any rank: weights only
  std::string config_yaml;
  nlohmann::ordered_json state;  // state.json
  std::string tokenizer_model;   // Tokenizer::model_bytes(); empty = none
  std::string tokenizer_file = "tokenizer.model";  // Tokenizer::file_name()
};

/// Writes FOLDER as described above and reads it back before it gets its name; a reader sees a
/// whole checkpoint or none. Every rank of `save` calls it with what it holds. Throws cannot_write on all of them where any of them cannot write, with its rank, and
/// leaves no FOLDER behind. FOLDER must not exist, and all ranks must see it.
void write_checkpoint(const std::string& folder, const CheckpointContents& contents, Communicator& save);
/// The same of one process.
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
  /// Throws bad_file with the first missing, unknown or misshapen name where the weights are not those of `module` (which may be on meta or divided).
  void check_weights(const torch::nn::Module& module) const;
  /// check_weights(), then copies the weights, or of those that were divided this rank's slices, into `module`'s parameters (which have storage), casting. Every
  /// tensor's CRC32C is checked as it is read.
  void load_weights(torch::nn::Module& module) const;
  /// Fills `out` ([end - begin] float32 on the CPU) with elements [begin, end) of the flattened slice that `info` describes, out of whichever pieces hold them, whatever mesh wrote them.
  /// `kind`: "" for the weight, "exp_avg", "exp_avg_sq". Throws bad_file naming the first element that no piece holds, counted in the whole parameter. Every piece's CRC32C is checked.
  void load_part(const std::string& kind, const ParameterInfo& info, int64_t begin, int64_t end, Tensor& out) const;
  /// One weight as float32 on the CPU.
  Tensor weight(const std::string& name) const;
  std::vector<std::string> weight_names() const;
  bool has_optimizer() const;

 private:
  std::string read_checked(const std::string& name) const;
  const SafetensorsReader& reader(const std::string& name) const;
  Tensor read_tensor(const std::string& file, const std::string& tensor) const;
  std::string folder_;
  Manifest manifest_;
  mutable std::map<std::string, std::shared_ptr<const SafetensorsReader>> readers_;  // opened once: a header lists thousands of tensors
};

inline constexpr const char* kManifestFile = "manifest.json";
/// Whether a file of a checkpoint is the tokenizer's model: it is none of the others.
bool is_tokenizer_file(const std::string& name);
/// Reads one file of a checkpoint and checks its CRC32C; throws bad_file naming the file and, where one is damaged, the tensor.
void verify_file(const std::string& folder, const std::string& name, const ManifestFile& facts);

/// PATH is a checkpoint folder, or a run folder (then its newest checkpoint that verifies and is of
/// the step its name says; others are named in a warning). Throws bad_file when there is none.
std::string find_checkpoint(const std::string& path);

/// Steps of the complete checkpoints of a run folder, ascending; folder names are step-%08d.
std::vector<int64_t> checkpoint_steps(const std::string& run_folder);
std::string checkpoint_folder(const std::string& run_folder, int64_t step);

}  // namespace tandem
