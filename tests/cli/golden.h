#pragma once
#include <map>
#include <string>

#include "core/safetensors.h"
#include "tests/nn/helpers.h"

// Inputs and outputs of the official YOCO code, tests/golden/yoco; its README says how they were made.

namespace tandem {

inline std::string golden_yoco(const std::string& name) { return std::string(TANDEM_SOURCE_DIR) + "/tests/golden/yoco/" + name; }

/// Every tensor of a safetensors file of F32 and I64.
inline std::map<std::string, Tensor> read_tensors(const std::string& path) {
  const SafetensorsReader reader(path);
  std::map<std::string, Tensor> tensors;
  for (const auto& entry : reader.entries()) {
    const auto dtype = entry.type == DataType::kI64 ? torch::kInt64 : torch::kFloat32;
    Tensor tensor = torch::empty(entry.shape, dtype);
    EXPECT_EQ(tensor.nbytes(), entry.bytes()) << path << " " << entry.name;
    reader.read(entry, 0, {static_cast<std::byte*>(tensor.mutable_data_ptr()), tensor.nbytes()});
    tensors.emplace(entry.name, std::move(tensor));
  }
  return tensors;
}

}  // namespace tandem
