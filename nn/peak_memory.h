#pragma once
#include <torch/types.h>

#include <cstdint>
#include <optional>

namespace tandem {

/// The most memory that work took beyond what was in use before it. One at a time, as the system
/// counts for the whole process.
class PeakMemory {
 public:
  /// From here on. CPU: resident memory, after what was freed before has been given back to the
  /// system; GPU: what tensors hold.
  explicit PeakMemory(torch::Device device);
  int64_t before_bytes() const { return before_; }
  /// Highest so far, less before_bytes(); absent where the system does not let the count begin
  /// anew.
  std::optional<int64_t> growth_bytes() const;
  /// GPU: the most that the allocator held so far, spare room included; CPU: absent.
  std::optional<int64_t> reserved_bytes() const;

 private:
  torch::Device device_;
  bool counts_ = true;
  int64_t before_ = 0;
};

/// Gives what was freed back to the system.
void release_free_memory(torch::Device device);

}  // namespace tandem
