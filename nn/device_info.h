#pragma once
#include <torch/types.h>

#include <optional>
#include <string>

namespace tandem {

struct MemoryUse {
  double bytes = 0;  // CPU: resident; GPU: the most that was reserved
  double limit = 0;  // CPU: of the control group or the machine; GPU: of the device
};
MemoryUse memory_use(torch::Device device);
/// Bytes that could be taken now. CPU: what the system says is available, or what is left to the
/// control group; 0 where neither tells.
double available_memory(torch::Device device);

/// "NVIDIA H200", or the CPU's model; "cuda" or "cpu" where the system does not tell.
std::string device_name(torch::Device device);

/// Dense matrix FLOPs per second of one device by its data sheet; none for devices and dtypes whose
/// number is not known here.
std::optional<double> peak_flops(const std::string& name, torch::Dtype dtype);

}  // namespace tandem
