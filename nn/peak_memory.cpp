#include "nn/peak_memory.h"

#include <ATen/Context.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <malloc.h>

#include <algorithm>
#include <cstdlib>
#include <string>

#include "core/error.h"
#include "core/file.h"

namespace tandem {
namespace {

/// A line "VmHWM:   123 kB" of /proc/self/status, in bytes; 0 where there is none.
int64_t status_bytes(const std::string& key) {
  const std::string text = read_text("/proc/self/status");
  const size_t at = text.find(key + ":");
  return at == text.npos ? 0 : 1024 * std::atoll(text.c_str() + at + key.size() + 1);
}

/// Sets the peak (VmHWM) back to what is resident now; see proc(5), clear_refs.
void reset_resident_peak() {
  File file = File::open_append("/proc/self/clear_refs");
  file.write("5");
  file.close();
}

c10::DeviceIndex index_of(torch::Device device) {
  return device.has_index() ? device.index() : c10::DeviceIndex{0};
}

constexpr auto kAll = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);

auto stats_of(torch::Device device) {
  at::globalContext().lazyInitDevice(device.type());  // the allocator counts from then on
  return at::getDeviceAllocator(device.type())->getDeviceStats(index_of(device));
}

auto allocated(torch::Device device) { return stats_of(device).allocated_bytes[kAll]; }

}  // namespace

PeakMemory::PeakMemory(torch::Device device) : device_(device) {
  if (!device.is_cpu()) {
    before_ = allocated(device).current;
    at::getDeviceAllocator(device.type())->resetPeakStats(index_of(device));
    return;
  }
  release_free_memory(device);  // else the work would take that, and seem to take nothing
  try {
    reset_resident_peak();
    before_ = status_bytes("VmRSS");
  } catch (const UserError&) {
    counts_ = false;  // no /proc, or not writable
  }
  counts_ = counts_ && before_ > 0;
}

std::optional<int64_t> PeakMemory::growth_bytes() const {
  if (!device_.is_cpu()) return allocated(device_).peak - before_;
  if (!counts_) return std::nullopt;
  return std::max<int64_t>(0, status_bytes("VmHWM") - before_);
}

std::optional<int64_t> PeakMemory::reserved_bytes() const {
  if (device_.is_cpu()) return std::nullopt;
  return stats_of(device_).reserved_bytes[kAll].peak;
}

void release_free_memory(torch::Device device) {
  if (device.is_cpu()) {
    malloc_trim(0);
  } else {
    at::getDeviceAllocator(device.type())->emptyCache();
  }
}

}  // namespace tandem
