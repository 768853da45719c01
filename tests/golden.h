#pragma once
#include <torch/types.h>

#include <map>
#include <span>
#include <string>

#include "core/safetensors.h"
#include "tests/paths.h"

// Reads the reference data below tests/golden.

namespace tandem {

/// tests/golden/NAME.
inline std::string golden_path(const std::string& name) {
  return std::string(kSourceDir) + "/tests/golden/" + name;
}

/// A case of the official YOCO code's inputs and outputs; its README says how they were made.
inline std::string golden_yoco(const std::string& name) { return golden_path("yoco/" + name); }

inline torch::Dtype dtype_of(const TensorEntry& entry) {
  switch (entry.type) {
    case DataType::kF64: return torch::kFloat64;
    case DataType::kF32: return torch::kFloat32;
    case DataType::kI64: return torch::kInt64;
    default: TORCH_CHECK(false, entry.name, " is ", name_of(entry.type));
  }
}

/// F64, F32 or I64 as it is stored; throws c10::Error for another type.
inline torch::Tensor read_tensor(const SafetensorsReader& reader, const TensorEntry& entry) {
  auto tensor = torch::empty(entry.shape, dtype_of(entry));
  reader.read(entry, 0, std::span(static_cast<std::byte*>(tensor.data_ptr()), tensor.nbytes()));
  return tensor;
}

/// Every tensor of a file by name.
inline std::map<std::string, torch::Tensor> read_tensors(const std::string& path) {
  const SafetensorsReader reader(path);
  std::map<std::string, torch::Tensor> tensors;
  for (const auto& entry : reader.entries()) tensors.emplace(entry.name, read_tensor(reader, entry));
  return tensors;
}

/// The tensors of one golden file.
class Golden {
 public:
  explicit Golden(const std::string& name) : reader_(golden_path(name)) {}

  bool has(const std::string& name) const { return reader_.find(name) != nullptr; }

  /// F64, F32 and I64 tensors as they are stored. Throws c10::Error for another type or an unknown
  /// name.
  torch::Tensor operator()(const std::string& name) const {
    const TensorEntry* entry = reader_.find(name);
    TORCH_CHECK(entry, reader_.path(), ": no tensor ", name);
    return read_tensor(reader_, *entry);
  }

 private:
  SafetensorsReader reader_;
};

}  // namespace tandem
