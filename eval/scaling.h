#pragma once
#include <string>
#include <vector>

#include "eval/fit.h"
#include "eval/registry.h"
#include "eval/scaling_points.h"

namespace tandem {

extern const char* const kScalingHelp;

/// Fits of result files, by group: L = E + A / N^alpha + B / D^beta and L = a C^-b + c with
/// bootstrap intervals, iso-FLOP curves, and who is on the Pareto front of loss against throughput
/// and memory.
EvalTable run_scaling(const ScalingConfig& config, const EvalArgs& args);

/// Why runs like these cannot give a law's exponents, whatever their losses are; empty where they
/// can.
std::vector<std::string> doubts_of_runs(const LossPoints& points);

}  // namespace tandem
