#pragma once
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cli/convert.h"
#include "core/file.h"
#include "core/json_lines.h"
#include "tests/core/helpers.h"
#include "tests/golden.h"

// Tiny folders of other libraries: tests/golden/hf, made by scripts/make_hf_goldens.py.

namespace tandem {

struct HfGolden {
  std::string format, name;
};
inline const std::vector<HfGolden>& hf_goldens() {
  static const std::vector<HfGolden> goldens = {
      {"hf-llama", "llama_gqa"},        {"hf-llama", "llama_tied"},
      {"hf-gpt-neox", "neox_parallel"}, {"hf-gpt-neox", "neox_serial"},
      {"fla-yoco", "fla_retention"},    {"fla-yoco", "fla_retention_tied"},
      {"fla-yoco", "fla_swa"},          {"fla-yoco", "fla_qk_norm"},
      {"fla-yoco", "fla_bias"},         {"fla-yoco", "fla_qk_norm_bias_tied"}};
  return goldens;
}
inline std::string golden_hf(const std::string& name) { return golden_path("hf/" + name); }

inline bool is_weight_file(const std::string& name) {
  return name.starts_with("model") && name.ends_with(".safetensors");
}

/// A copy of a golden in `folder`, without its inputs and outputs.
inline std::string copy_golden(const std::string& name, const std::string& folder) {
  make_directories(folder);
  for (const auto& file : list_directory(golden_hf(name))) {
    if (file != "io.safetensors")
      write_atomically(join_path(folder, file), read_text(join_path(golden_hf(name), file)));
  }
  return folder;
}

inline void change_json(const std::string& path,
                        const std::function<void(nlohmann::ordered_json&)>& change) {
  auto json = read_json(path);
  change(json);
  write_atomically(path, json.dump(2) + "\n");
}

inline DataType stored_as(torch::Dtype dtype) {
  switch (dtype) {
    case torch::kBFloat16:
      return DataType::kBF16;
    case torch::kFloat16:
      return DataType::kF16;
    case torch::kInt64:
      return DataType::kI64;
    default:
      return DataType::kF32;
  }
}

/// Every tensor of all files of weights, as float32.
inline std::map<std::string, torch::Tensor> folder_tensors(const std::string& folder) {
  std::map<std::string, torch::Tensor> tensors;
  for (const auto& file : list_directory(folder)) {
    if (!is_weight_file(file)) continue;
    const SafetensorsReader reader(join_path(folder, file));
    for (const auto& entry : reader.entries()) {
      if (entry.type == DataType::kU8) continue;  // a mask of older files
      const auto dtype = entry.type == DataType::kBF16  ? torch::kBFloat16
                         : entry.type == DataType::kF16 ? torch::kFloat16
                                                        : torch::kFloat32;
      auto tensor = torch::empty(entry.shape, dtype);
      reader.read(entry, 0, {static_cast<std::byte*>(tensor.data_ptr()), tensor.nbytes()});
      tensors.emplace(entry.name, tensor.to(torch::kFloat32));
    }
  }
  return tensors;
}

/// The tensors in one file, each of its own type.
inline void write_tensor_file(const std::string& path,
                              const std::map<std::string, torch::Tensor>& tensors) {
  std::vector<TensorEntry> entries;
  for (const auto& [name, tensor] : tensors) {
    TensorEntry entry;
    entry.name = name;
    entry.type = stored_as(tensor.scalar_type());
    entry.shape = tensor.sizes().vec();
    entries.push_back(entry);
  }
  SafetensorsWriter writer(path, entries);
  for (const auto& entry : writer.order()) {
    const auto tensor = tensors.at(entry.name).contiguous();
    writer.write({static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()});
  }
  writer.finish();
}

}  // namespace tandem
