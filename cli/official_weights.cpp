#include "cli/official_weights.h"

#include <algorithm>

#include "core/error.h"
#include "core/file.h"

namespace tandem {
namespace {

constexpr const char* kWeights = "model.safetensors";

bool is_pickle(const std::string& name) {
  return name.ends_with(".pth") || name.ends_with(".pt") || name.ends_with(".bin");
}

std::vector<std::string> weight_files(const std::string& folder) {
  const auto names = list_directory(folder);
  std::vector<std::string> files;
  for (const auto& name : names) {
    if (name == kWeights) return {join_path(folder, name)};
    if (name.ends_with(".safetensors")) files.push_back(join_path(folder, name));
  }
  if (files.empty()) refuse_without_safetensors(folder);
  return files;
}

std::string shape_text(const std::vector<int64_t>& shape) {
  return c10::str(c10::IntArrayRef(shape));
}

void write_weights(const std::string& path, const std::map<std::string, Tensor>& weights) {
  std::vector<TensorEntry> entries;
  for (const auto& [name, tensor] : weights) {
    TensorEntry entry;
    entry.name = name;
    entry.type = stored_type_of(tensor.scalar_type());
    entry.shape = tensor.sizes().vec();
    entries.push_back(std::move(entry));
  }
  SafetensorsWriter writer(path, std::move(entries));
  for (const auto& entry : writer.order()) {
    const Tensor tensor = weights.at(entry.name).contiguous();
    writer.write({static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()});
  }
  writer.finish();
}

}  // namespace

void refuse_without_safetensors(const std::string& folder) {
  const auto names = list_directory(folder);
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

torch::Dtype torch_type_of(const SafetensorsReader& reader, const TensorEntry& entry) {
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

Tensor read_stored(const SafetensorsReader& reader, const TensorEntry& entry) {
  Tensor tensor = torch::empty(entry.shape, torch_type_of(reader, entry));
  reader.read(entry, 0, {static_cast<std::byte*>(tensor.mutable_data_ptr()), tensor.nbytes()});
  return tensor;
}

DataType stored_type_of(torch::Dtype dtype) {
  TORCH_CHECK(dtype == torch::kFloat32 || dtype == torch::kBFloat16 || dtype == torch::kFloat16,
              "weights are written as float32, bfloat16 or float16, not ", dtype);
  if (dtype == torch::kBFloat16) return DataType::kBF16;
  return dtype == torch::kFloat16 ? DataType::kF16 : DataType::kF32;
}

OfficialWeights::OfficialWeights(const std::string& folder, const std::string& prefix) {
  for (const auto& path : weight_files(folder)) readers_.emplace_back(path);
  for (const auto& reader : readers_) {
    for (const auto& entry : reader.entries()) {
      const std::string name =
          entry.name.starts_with(prefix) ? entry.name.substr(prefix.size()) : entry.name;
      if (!tensors_.emplace(name, Place{&reader, &entry}).second)
        throw bad_file(reader.path(), "tensor " + name + " comes twice");
    }
  }
}

void OfficialWeights::skip(const std::function<bool(const std::string& name)>& is_skipped) {
  std::erase_if(tensors_, [&](const auto& tensor) { return is_skipped(tensor.first); });
}

Tensor OfficialWeights::take(const std::string& name, const std::vector<int64_t>& shape) {
  const auto found = tensors_.find(name);
  if (found == tensors_.end())
    throw bad_file(path(), "has no tensor " + name + ", which a model of this architecture needs");
  const auto [reader, entry] = found->second;
  if (entry->shape != shape) {
    throw bad_file(reader->path(), "tensor " + name + " is " + shape_text(entry->shape) +
                                       ", a model of this architecture needs " + shape_text(shape));
  }
  const Tensor tensor = read_stored(*reader, *entry);
  tensors_.erase(found);
  return tensor.to(torch::kFloat32);
}

void OfficialWeights::expect_all_taken() const {
  if (tensors_.empty()) return;
  const auto& [name, place] = *tensors_.begin();
  throw bad_file(place.reader->path(),
                 "tensor " + name + " is not in a model of this architecture");
}

void write_official_folder(const std::string& folder, const std::map<std::string, Tensor>& weights,
                           const std::string& text_name, const std::string& text) {
  write_folder(folder, [&](const std::string& partial) {
    write_weights(join_path(partial, kWeights), weights);
    write_atomically(join_path(partial, text_name), text);
  });
}

}  // namespace tandem
