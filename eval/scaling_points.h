#pragma once
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/config.h"

namespace tandem {

struct ScalingConfig {
  std::string loss = "validation";  // validation | train: of the sweep's record; `loss` of other
                                    // lines counts as both
  std::string parameters = "non_embedding";  // non_embedding | all: what N counts
  std::string compute = "measured";          // measured: FLOPs as the record has them | 6nd: 6 N D
  std::string memory =
      "state";              // state | peak: bytes a row of `bench inference`, for the Pareto front
  int64_t resamples = 300;  // of the bootstrap
  double level = 0.9;       // of the intervals
  template <typename Visitor>
  void fields(Visitor& visit) {
    visit.one_of("loss", loss, {"validation", "train"});
    visit.one_of("parameters", parameters, {"non_embedding", "all"});
    visit.one_of("compute", compute, {"measured", "6nd"});
    visit.one_of("memory", memory, {"state", "peak"});
    visit.value("resamples", resamples, in_range(20, 100000));
    visit.value("level", level, in_range(0.5, 0.999));
  }
};

/// A trained model: what went into it and what came out.
struct ScalingRun {
  std::string name, group, folder;
  double n = 0, d = 0, c = 0;  // parameters, tokens, FLOPs of training
  double loss = 0;
  std::optional<double> budget;  // of FLOPs, where its steps were made out of one
  std::optional<double> tokens_per_second, state_bytes;  // of training; of a row
};

/// A line of `tandem bench inference`.
struct BenchPoint {
  std::string model, of_case;  // "yoco, 992 + 32 tokens"
  int64_t batch = 0;
  double tokens_per_second = 0, bytes_per_row = 0;
};

struct ScalingPoints {
  std::vector<ScalingRun> runs;
  std::vector<BenchPoint> bench;
};

/// The lines of result files: records of a sweep (or lines with parameters, tokens and loss of
/// one's own), and of `tandem bench inference`. A record that comes twice counts once. Throws
/// bad_file with file and line.
ScalingPoints read_scaling_points(std::span<const std::string> paths, const ScalingConfig& config);

/// The greatest is 1.5 times the least or more. Runs of one size, such as an ablation's, have no
/// law of size, however their few parameters more or less lie.
constexpr double kLeastSpan = 1.5;
bool vary(std::span<const double> values);

}  // namespace tandem
