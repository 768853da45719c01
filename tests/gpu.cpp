#include "tests/gpu.h"

#include <torch/cuda.h>

namespace tandem {

std::optional<torch::Device> gpu_of_tests() {
  if (!torch::cuda::is_available()) return std::nullopt;
  return torch::Device(torch::kCUDA, 0);
}

}  // namespace tandem
