#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/file.h"

namespace tandem {

// TensorBoard event files: records of a protobuf Event each, framed with masked CRC32C sums.
// Written by hand, since an Event with scalars is six fields.

using Scalars = std::vector<std::pair<std::string, double>>;  // tag, value

std::string version_event(double wall_time);  ///< the first of a file
std::string scalars_event(double wall_time, int64_t step, const Scalars& scalars);
std::string restart_event(
    double wall_time, int64_t step);  ///< TensorBoard forgets points of this folder from `step` on
std::string event_record(std::string_view event);  ///< length, its sum, the event, its sum

/// Appends points to a new event file of `folder`, which TensorBoard reads together with older ones
/// there.
class TensorboardWriter {
 public:
  /// `next_step` > 1 (a resumed run): points from there on that a killed process left are dropped.
  TensorboardWriter(const std::string& folder, int64_t next_step);
  void write(int64_t step, const Scalars& scalars);

 private:
  File file_;
};

}  // namespace tandem
