#include "nn/device_info.h"

#include <c10/core/CachingDeviceAllocator.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "core/error.h"
#include "core/file.h"

namespace tandem {
namespace {

// Dense bfloat16, NVIDIA's data sheets; the first name that is part of the device's counts.
constexpr std::pair<const char*, double> kBfloat16Peaks[] = {
    {"GB300", 2500e12}, {"GB200", 2500e12},    {"B300", 2250e12},    {"B200", 2250e12},
    {"H200", 989e12},   {"H100 PCIe", 756e12}, {"H100 NVL", 835e12}, {"H100", 989e12},
    {"H20", 148e12},    {"A100", 312e12},
};

/// A file of /proc or /sys, or nothing where there is none.
std::string text_of(const std::string& path) {
  try {
    return read_text(path);
  } catch (const UserError&) {
    return "";
  }
}

/// What stands behind `key` and a colon on its line.
std::string value_after(const std::string& text, const std::string& key) {
  const size_t at = text.find(key);
  if (at == text.npos) return "";
  const size_t begin = text.find_first_not_of(": \t", at + key.size());
  return begin == text.npos ? "" : text.substr(begin, text.find('\n', begin) - begin);
}

double host_memory_available() {
  const double machine =
      std::atof(value_after(text_of("/proc/meminfo"), "MemAvailable").c_str()) * 1024;
  const double limit = std::atof(text_of("/sys/fs/cgroup/memory.max").c_str());  // 0: none
  const double used = std::atof(text_of("/sys/fs/cgroup/memory.current").c_str());
  return limit > 0 ? std::clamp(limit - used, 0.0, machine) : machine;
}

double host_memory_limit() {
  const double machine =
      std::atof(value_after(text_of("/proc/meminfo"), "MemTotal").c_str()) * 1024;
  const double group = std::atof(
      text_of("/sys/fs/cgroup/memory.max").c_str());  // 0 where there is none or it is "max"
  return group > 0 ? std::min(group, machine) : machine;
}

}  // namespace

MemoryUse memory_use(torch::Device device) {
  if (device.is_cpu()) {
    const std::string sizes = text_of("/proc/self/statm");  // pages: all, resident, ...
    const double pages = std::atof(sizes.substr(std::min(sizes.size(), sizes.find(' '))).c_str());
    static const double limit = host_memory_limit();
    return {pages * static_cast<double>(sysconf(_SC_PAGESIZE)), limit};
  }
  auto* allocator = at::getDeviceAllocator(device.type());
  const c10::DeviceIndex index = device.has_index() ? device.index() : c10::DeviceIndex{0};
  const auto stats = allocator->getDeviceStats(index);
  const auto all = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
  return {static_cast<double>(stats.reserved_bytes[all].peak),
          static_cast<double>(allocator->getMemoryInfo(index).second)};
}

double available_memory(torch::Device device) {
  if (device.is_cpu()) return host_memory_available();
  const c10::DeviceIndex index = device.has_index() ? device.index() : c10::DeviceIndex{0};
  return static_cast<double>(at::getDeviceAllocator(device.type())->getMemoryInfo(index).first);
}

std::string device_name(torch::Device device) {
  if (device.is_cpu()) {
    const std::string name = value_after(text_of("/proc/cpuinfo"), "model name");
    return name.empty() ? "cpu" : name;
  }
  // The driver's own listing: asking CUDA would bind this file to CUDA builds. Machines with GPUs
  // of several kinds are not told apart.
  const std::string gpus = "/proc/driver/nvidia/gpus";
  if (is_directory(gpus)) {
    for (const auto& gpu : list_directory(gpus)) {
      const std::string name =
          value_after(text_of(join_path(join_path(gpus, gpu), "information")), "Model");
      if (!name.empty()) return name;
    }
  }
  return device.type() == torch::kCUDA ? "cuda" : device.str();
}

std::optional<double> peak_flops(const std::string& name, torch::Dtype dtype) {
  if (dtype != torch::kBFloat16) return std::nullopt;
  for (const auto& [part, flops] : kBfloat16Peaks) {
    if (name.find(part) != name.npos) return flops;
  }
  return std::nullopt;
}

}  // namespace tandem
