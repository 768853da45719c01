#include "cli/hf_weights.h"

#include <cstdio>
#include <nlohmann/json.hpp>
#include <set>

#include "cli/official_weights.h"
#include "core/error.h"
#include "core/file.h"
#include "core/json_lines.h"

namespace tandem {
namespace {

constexpr const char *kWeights = "model.safetensors", *kIndex = "model.safetensors.index.json";

std::string shape_text(const std::vector<int64_t>& shape) {
  return c10::str(c10::IntArrayRef(shape));
}

/// Which file holds which tensor, as the index says.
std::map<std::string, std::string> read_index(const std::string& path) {
  const auto json = read_json(path);
  const auto fail = [&](const std::string& what) { return bad_file(path, what); };
  if (!json.is_object() || !json.contains("weight_map") || !json.at("weight_map").is_object())
    throw fail("has no object weight_map");
  std::map<std::string, std::string> files;
  for (const auto& [tensor, file] : json.at("weight_map").items()) {
    if (!file.is_string())
      throw fail("tensor " + tensor + " is in " + file.dump() + ", expected a file's name");
    const auto name = file.get<std::string>();
    if (name.find('/') != name.npos || !name.ends_with(".safetensors"))
      throw fail("lists " + one_line(name) +
                 ", expected the name of a *.safetensors in this folder");
    files[tensor] = name;
  }
  if (files.empty()) throw fail("weight_map is empty");
  return files;
}

}  // namespace

HfWeights::HfWeights(const std::string& folder) {
  const std::string single = join_path(folder, kWeights), index = join_path(folder, kIndex);
  if (exists(single)) {
    add(single);
  } else if (exists(index)) {
    const auto files = read_index(index);
    std::set<std::string> names;
    for (const auto& [tensor, file] : files) names.insert(file);
    for (const auto& name : names) {
      if (!exists(join_path(folder, name)))
        throw bad_file(index, "lists " + name + ", which is not in the folder");
      add(join_path(folder, name));
    }
    check_index(folder, files);
  } else {
    for (const auto& name : list_directory(folder)) {
      if (name.ends_with(".safetensors")) add(join_path(folder, name));
    }
    if (readers_.empty()) refuse_without_safetensors(folder);
  }
}

void HfWeights::add(const std::string& path) {
  const auto& reader = *readers_.emplace_back(std::make_unique<SafetensorsReader>(path));
  for (const auto& entry : reader.entries()) {
    if (!tensors_.emplace(entry.name, Place{&reader, &entry}).second)
      throw bad_file(path, "tensor " + entry.name + " comes twice");
  }
}

void HfWeights::check_index(const std::string& folder,
                            const std::map<std::string, std::string>& files) const {
  for (const auto& [tensor, file] : files) {
    const std::string path = join_path(folder, file);
    const auto place = tensors_.find(tensor);
    if (place == tensors_.end() || place->second.reader->path() != path)
      throw bad_file(path, "has no tensor " + tensor + ", which " + kIndex + " says it holds");
  }
  for (const auto& [tensor, place] : tensors_) {
    if (!files.contains(tensor))
      throw bad_file(place.reader->path(), "tensor " + tensor + " is not in " + kIndex);
  }
}

std::vector<std::string> HfWeights::drop(
    const std::function<bool(const std::string& name)>& is_dead) {
  std::vector<std::string> names;
  for (const auto& [name, place] : tensors_) {
    if (is_dead(name)) names.push_back(name);
  }
  for (const auto& name : names) tensors_.erase(name);
  return names;
}

void HfWeights::expect(const std::vector<FormTensor>& tensors) const {
  std::set<std::string> known;
  for (const auto& tensor : tensors) {
    known.insert(tensor.name);
    const auto found = tensors_.find(tensor.name);
    if (found == tensors_.end()) {
      throw bad_file(path(),
                     "has no tensor " + tensor.name + ", which a model of this architecture needs");
    }
    const auto [reader, entry] = found->second;
    if (entry->shape != tensor.shape) {
      throw bad_file(reader->path(), "tensor " + tensor.name + " is " + shape_text(entry->shape) +
                                         ", a model of this architecture needs " +
                                         shape_text(tensor.shape));
    }
    torch_type_of(*reader, *entry);
  }
  for (const auto& [name, place] : tensors_) {
    if (!known.contains(name))
      throw bad_file(place.reader->path(),
                     "tensor " + one_line(name) + " is not in a model of this architecture");
  }
}

Tensor HfWeights::read(const std::string& name) const {
  const auto [reader, entry] = tensors_.at(name);
  return read_stored(*reader, *entry).to(torch::kFloat32);
}

// ---- writing

void write_hf_weights(const std::string& folder, const std::vector<FormTensor>& tensors,
                      const std::function<Tensor(const FormTensor&)>& make, torch::Dtype dtype,
                      uint64_t max_bytes) {
  std::vector<std::vector<TensorEntry>> files(1);
  std::map<std::string, const FormTensor*> by_name;
  uint64_t in_file = 0, total = 0;
  for (const auto& tensor : tensors) {
    TensorEntry entry;
    entry.name = tensor.name;
    entry.type = stored_type_of(dtype);
    entry.shape = tensor.shape;
    auto bytes = static_cast<uint64_t>(size_of(entry.type));
    for (const int64_t size : tensor.shape) bytes *= static_cast<uint64_t>(size);
    if (in_file > 0 && in_file + bytes > max_bytes) {
      files.emplace_back();
      in_file = 0;
    }
    in_file += bytes;
    total += bytes;
    files.back().push_back(std::move(entry));
    by_name[tensor.name] = &tensor;
  }
  std::map<std::string, std::string> weight_map;
  for (size_t i = 0; i < files.size(); ++i) {
    char name[64] = "model.safetensors";
    if (files.size() > 1)
      std::snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", i + 1, files.size());
    SafetensorsWriter writer(join_path(folder, name), std::move(files[i]));
    for (const auto& entry : writer.order()) {
      const Tensor tensor = make(*by_name.at(entry.name)).to(dtype).contiguous();
      if (dtype == torch::kFloat16 && !tensor.isfinite().all().item<bool>()) {
        throw bad_usage("tensor " + entry.name +
                        " holds numbers that float16 has not; write bfloat16 or float32");
      }
      writer.write({static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()});
      weight_map[entry.name] = name;
    }
    writer.finish();
  }
  if (files.size() == 1) return;
  const nlohmann::ordered_json index = {{"metadata", {{"total_size", total}}},
                                        {"weight_map", weight_map}};
  write_atomically(join_path(folder, kIndex), index.dump(2) + "\n");
}

}  // namespace tandem
