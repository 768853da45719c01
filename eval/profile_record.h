#pragma once
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "eval/loaded_model.h"
#include "eval/profile_cost.h"

namespace tandem {

/// One cell of a profile, as it was decided.
struct ProfileCase {
  InferenceLength tokens;
  int64_t rows = 1;
  double memory_limit = 0;  // bytes
  InferenceMemory memory;   // computed
  bool fits() const { return memory.total() <= memory_limit; }
};

/// How its times came to be.
struct ProfileTimes {
  std::optional<Measured> measured;
  std::string why_computed;  // "memory", "time", "asked"; empty: measured
  std::optional<InferenceSeconds> computed;
  std::string basis;        // of computed: "extrapolated" | "roofline"
  int64_t from_length = 0;  // of the case that it was extrapolated from
};

/// The measured part of a record. Each number is {"value", "measured", "basis"}: basis "measured",
/// "shapes" (exact), "estimate" (activations), "extrapolated" (from a shorter case's pace) or
/// "roofline" (the least that a device of --peak-tflops and --bandwidth needs); value null where
/// nothing is known. Spreads of measured ones are in "min" and "max". `peak_flops` of MFU; 0: not
/// known.
nlohmann::ordered_json profile_record(const LoadedModel& loaded, const InferenceCost& cost,
                                      const ProfileCase& c, const ProfileTimes& times,
                                      double peak_flops);

/// The pace of a measured record; nothing of a computed one.
std::optional<Pace> pace_of_record(const nlohmann::ordered_json& record, const InferenceCost& cost,
                                   const InferenceLength& tokens);

/// One row of what people see, and its heading; "~" stands before what was not measured.
std::vector<std::string> profile_heading();
std::vector<std::string> profile_row(const nlohmann::ordered_json& record);

}  // namespace tandem
