#include "cli/load_model.h"

#include <torch/cuda.h>

#include <charconv>
#include <string_view>

#include "cli/build_model.h"
#include "core/checksum.h"
#include "core/error.h"
#include "core/file.h"
#include "nn/checkpoint.h"

namespace tandem {
namespace {

const ConfigNode* find(const ConfigNode& config, const char* section, const char* key) {
  const ConfigNode* map = config.find(section);
  return map ? map->find(key) : nullptr;
}

int64_t context_length_of(const ConfigNode& config) {
  const ConfigNode* node = find(config, "training", "context_length");
  int64_t length = 0;
  if (node) std::from_chars(node->scalar.data(), node->scalar.data() + node->scalar.size(), length);
  return length;
}

/// Null for imported weights of which nobody said what their ids stand for.
std::unique_ptr<Tokenizer> tokenizer_of(const Checkpoint& checkpoint, const ConfigNode& config) {
  const std::string path = checkpoint.tokenizer();
  if (path == "bytes" && !find(config, "data", "tokenizer")) return nullptr;
  return load_tokenizer(path);
}

std::string hash_of_file(const std::string& path) {
  const std::string text = read_text(path);
  return sha256_hex(text);
}

/// Of a checkpoint, its weights without storage.
LoadedModel described(const Checkpoint& checkpoint) {
  const std::string config_path = join_path(checkpoint.folder(), "config.yaml");
  LoadedModel loaded;
  loaded.config = parse_yaml(checkpoint.config_yaml(), config_path);
  loaded.tokenizer = tokenizer_of(checkpoint, loaded.config);
  Choice choice = read_model_section(loaded.config, config_path);
  if (!find(loaded.config, "model", "vocab_size")) {
    if (!loaded.tokenizer)
      throw bad_file(config_path, "has neither model.vocab_size nor a tokenizer that gives it");
    model_factory().set_vocab_size(choice, loaded.tokenizer->vocab_size());
  }
  loaded.model = model_factory().build(choice);
  loaded.checkpoint = checkpoint.folder();
  loaded.manifest_hash = hash_of_file(join_path(checkpoint.folder(), kManifestFile));
  loaded.step = checkpoint.step();
  loaded.context_length = context_length_of(loaded.config);
  return loaded;
}

/// Of a config, its weights without storage.
LoadedModel described(const std::string& config_path) {
  LoadedModel loaded;
  loaded.config = parse_yaml_file(config_path);
  Choice choice = read_model_section(loaded.config, config_path);
  const ConfigNode* tokenizer = find(loaded.config, "data", "tokenizer");
  const bool vocab_is_given = find(loaded.config, "model", "vocab_size") != nullptr;
  const bool usable = tokenizer && (tokenizer_exists(tokenizer->scalar) || !vocab_is_given);
  loaded.tokenizer = load_tokenizer(usable ? tokenizer->scalar : "bytes");
  if (!vocab_is_given) model_factory().set_vocab_size(choice, loaded.tokenizer->vocab_size());
  loaded.model = model_factory().build(choice);
  loaded.context_length = context_length_of(loaded.config);
  return loaded;
}

}  // namespace

LoadedModel load_model(const std::string& path, torch::Device device, torch::Dtype dtype) {
  const Checkpoint checkpoint(find_checkpoint(path));
  LoadedModel loaded = described(checkpoint);
  materialise_empty(*loaded.model, device, dtype);
  checkpoint.load_weights(*loaded.model);
  return loaded;
}

LoadedModel random_model(const std::string& config_path, uint64_t seed, torch::Device device,
                         torch::Dtype dtype) {
  LoadedModel loaded = described(config_path);
  initialise(*loaded.model, seed, device, dtype);
  return loaded;
}

LoadedModel describe_model(const std::string& path) {
  return is_config(path) ? described(path) : described(Checkpoint(find_checkpoint(path)));
}

bool is_config(const std::string& path) {
  return (path.ends_with(".yaml") || path.ends_with(".yml")) && !is_directory(path);
}

torch::Device parse_device(const std::string& word) {
  const auto n_gpus =
      static_cast<int64_t>(torch::cuda::device_count());  // 0 in a build without CUDA
  if (word == "auto")
    return n_gpus > 0 ? torch::Device(torch::kCUDA, 0) : torch::Device(torch::kCPU);
  if (word == "cpu") return torch::kCPU;
  constexpr std::string_view kNumbered = "cuda:";
  int64_t index = 0;
  if (word.starts_with(kNumbered)) {
    const char* const end = word.data() + word.size();
    const auto read = std::from_chars(word.data() + kNumbered.size(), end, index);
    if (read.ec != std::errc() || read.ptr != end || index < 0) index = -1;
  } else if (word != "cuda") {
    index = -1;
  }
  if (index < 0) throw bad_usage("--device " + word + ", expected auto, cpu, cuda or cuda:N");
  if (index >= n_gpus)
    throw bad_usage("--device " + word + ": found " + std::to_string(n_gpus) + " GPUs");
  return torch::Device(torch::kCUDA, static_cast<torch::DeviceIndex>(index));
}

torch::Dtype parse_dtype(const std::string& word) {
  if (word == "float32") return torch::kFloat32;
  if (word == "bfloat16") return torch::kBFloat16;
  if (word == "float64") return torch::kFloat64;
  throw bad_usage("--dtype " + word + ", expected float32, bfloat16 or float64");
}

}  // namespace tandem
