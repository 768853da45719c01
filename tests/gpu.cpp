#include "tests/gpu.h"

#include <torch/cuda.h>

namespace tandem {

std::optional<torch::Device> gpu_of_tests() {
  return torch::Device(torch::kCPU);
  return torch::Device(torch::kCUDA, 0);
}

}  // namespace tandem
