#include "cli/yoco_official.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "cli/build_model.h"
#include "core/error.h"
#include "core/file.h"
#include "core/json_lines.h"
#include "core/log.h"
#include "core/safetensors.h"
#include "nn/official_transformer_names.h"
#include "yoco/official_names.h"

namespace tandem {
namespace {

constexpr const char* kWrapper =
    "decoder.model.";  // in front of every name of a checkpoint that training wrote
constexpr const char* kHead = "head.weight";
constexpr const char* kEmbedding = "embedding.weight";

std::string official_name(const Choice& model, const std::string& ours) {
  return model.name == "yoco" ? official_yoco_name(ours) : official_transformer_name(ours);
}

// ---- reading

std::string params_path(const std::string& folder) {
  if (!is_directory(folder)) throw bad_file(folder, "is not a folder");
  for (const char* name : {"params.json", "config.json"}) {
    if (exists(join_path(folder, name))) return join_path(folder, name);
  }
  throw bad_file(folder, "holds no params.json with the model's arguments");
}

Choice read_params(const std::string& path) {
  const auto json = read_json(path);
  Choice model = model_factory().choice();
  try {
    OfficialParams params(json);
    if (json.contains("n_self_heads")) {
      model.pick("yoco");
      model.as<YocoConfig>() = yoco_of_official(params);
    } else {
      model.pick("transformer");
      model.as<TransformerConfig>() = transformer_of_official(params);
    }
    for (const auto& key : params.not_asked_for())
      log_warning(path + ": " + key + " has no effect");
  } catch (const std::runtime_error& error) {
    throw bad_file(path, error.what());
  }
  return model;
}

bool is_pickle(const std::string& name) {
  return name.ends_with(".pth") || name.ends_with(".pt") || name.ends_with(".bin");
}

std::vector<std::string> weight_files(const std::string& folder) {
  const auto names = list_directory(folder);
  std::vector<std::string> files;
  for (const auto& name : names) {
    if (name == "model.safetensors") return {join_path(folder, name)};
    if (name.ends_with(".safetensors")) files.push_back(join_path(folder, name));
  }
  if (!files.empty()) return files;
  const auto pickle = std::find_if(names.begin(), names.end(), is_pickle);
  if (pickle == names.end()) throw bad_file(folder, "holds no *.safetensors");
  throw bad_file(join_path(folder, *pickle),
                 "is a pickle, which can run any program and is not read; save it as "
                 "model.safetensors first, in Python: "
                 "safetensors.torch.save_file({k: v.clone() for k, v in torch.load(\"" +
                     *pickle +
                     "\", weights_only=True).items()}, "
                     "\"model.safetensors\")");
}

/// The tensors of all files by their names without the wrapper.
class OfficialWeights {
 public:
  explicit OfficialWeights(const std::string& folder) {
    for (const auto& path : weight_files(folder)) readers_.emplace_back(path);
    for (const auto& reader : readers_) {
      for (const auto& entry : reader.entries()) {
        const std::string name = entry.name.starts_with(kWrapper)
                                     ? entry.name.substr(std::string(kWrapper).size())
                                     : entry.name;
        if (!tensors_.emplace(name, Place{&reader, &entry}).second)
          throw bad_file(reader.path(), "tensor " + name + " comes twice");
      }
    }
  }

  /// Takes one tensor as float32.
  Tensor take(const std::string& name, const std::vector<int64_t>& shape) {
    const auto found = tensors_.find(name);
    if (found == tensors_.end())
      throw bad_file(readers_[0].path(),
                     "has no tensor " + name + ", which a model of these arguments needs");
    const auto [reader, entry] = found->second;
    if (entry->shape != shape) {
      throw bad_file(reader->path(),
                     "tensor " + name + " is " + c10::str(c10::IntArrayRef(entry->shape)) +
                         ", a model of these arguments needs " + c10::str(c10::IntArrayRef(shape)));
    }
    Tensor tensor = torch::empty(shape, dtype_of(*reader, *entry));
    reader->read(*entry, 0, {static_cast<std::byte*>(tensor.mutable_data_ptr()), tensor.nbytes()});
    tensors_.erase(found);
    return tensor.to(torch::kFloat32);
  }

  void expect_all_taken() const {
    if (tensors_.empty()) return;
    const auto& [name, place] = *tensors_.begin();
    throw bad_file(place.reader->path(),
                   "tensor " + name + " is not in a model of these arguments");
  }

 private:
  struct Place {
    const SafetensorsReader* reader;
    const TensorEntry* entry;
  };

  static torch::Dtype dtype_of(const SafetensorsReader& reader, const TensorEntry& entry) {
    switch (entry.type) {
      case DataType::kF32:
        return torch::kFloat32;
      case DataType::kF16:
        return torch::kFloat16;
      case DataType::kBF16:
        return torch::kBFloat16;
      default:
        throw bad_file(reader.path(), "tensor " + entry.name + " is " + name_of(entry.type) +
                                          ", expected F32, F16 or BF16");
    }
  }

  std::vector<SafetensorsReader> readers_;
  std::map<std::string, Place> tensors_;
};

// ---- writing

nlohmann::ordered_json params_of(const Choice& model) {
  if (model.name == "yoco") return official_params_of(model.as<YocoConfig>());
  if (model.name == "transformer") return official_params_of(model.as<TransformerConfig>());
  throw bad_usage("a model of family " + model.name +
                  " cannot be written as yoco-official, which has yoco and transformer");
}

/// Under the official names. A tied head is there twice, as the official tables are always
/// separate.
std::map<std::string, Tensor> official_weights(const PortableModel& portable) {
  std::map<std::string, Tensor> weights;
  for (const auto& [name, tensor] : portable.weights)
    weights.emplace(official_name(portable.model, name), tensor.contiguous());
  weights.emplace(official_name(portable.model, kHead),
                  weights.at(official_name(portable.model, kEmbedding)));
  return weights;
}

void write_files(const std::string& folder, const std::string& params,
                 const std::map<std::string, Tensor>& weights) {
  std::vector<TensorEntry> entries;
  for (const auto& [name, tensor] : weights) {
    TensorEntry entry;
    entry.name = name;
    entry.type = DataType::kF32;
    entry.shape = tensor.sizes().vec();
    entries.push_back(std::move(entry));
  }
  SafetensorsWriter writer(join_path(folder, "model.safetensors"), std::move(entries));
  for (const auto& entry : writer.order()) {
    const Tensor& tensor = weights.at(entry.name);
    writer.write({static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()});
  }
  writer.finish();
  write_atomically(join_path(folder, "params.json"), params);
}

}  // namespace

PortableModel read_yoco_official(const std::string& folder) {
  PortableModel portable;
  portable.model = read_params(params_path(folder));
  OfficialWeights weights(folder);
  for (const auto& info : parameters_info(*model_factory().build(portable.model))) {
    portable.weights.emplace_back(
        info.name, weights.take(official_name(portable.model, info.name), info.global_shape));
  }
  weights.expect_all_taken();
  return portable;
}

void write_yoco_official(const std::string& folder, const PortableModel& portable) {
  const std::string params = params_of(portable.model).dump(2) + "\n";
  const auto weights = official_weights(portable);
  write_folder(folder, [&](const std::string& partial) { write_files(partial, params, weights); });
}

}  // namespace tandem
