#pragma once
#include <torch/types.h>

#include <span>
#include <string>
#include <vector>

#include "core/safetensors.h"

// Reads the reference data below tests/golden.

namespace tandem {

/// TANDEM_SOURCE_DIR/tests/golden/NAME.
inline std::string golden_path(const std::string& name) {
  return std::string(TANDEM_SOURCE_DIR) + "/tests/golden/" + name;
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
    auto tensor = torch::empty(entry->shape, type_of(*entry));
    reader_.read(*entry, 0, std::span(static_cast<std::byte*>(tensor.data_ptr()), tensor.nbytes()));
    return tensor;
  }

 private:
  torch::Dtype type_of(const TensorEntry& entry) const {
    switch (entry.type) {
      case DataType::kF64:
        return torch::kFloat64;
      case DataType::kF32:
        return torch::kFloat32;
      case DataType::kI64:
        return torch::kInt64;
      default:
        TORCH_CHECK(false, reader_.path(), ": ", entry.name, " is ", name_of(entry.type));
    }
  }

  SafetensorsReader reader_;
};

}  // namespace tandem
