#pragma once
#include <functional>
#include <span>
#include <vector>

namespace tandem {

/// A function of a small vector: its value, and its gradient into the second argument.
using Objective = std::function<double(std::span<const double> at, std::span<double> gradient)>;

struct LbfgsOptions {
  int history = 10;  // pairs that stand for the curvature
  int max_iterations = 1000;
  double gradient_tolerance = 1e-9;   // largest component; relative to the objective's own scale
  double decrease_tolerance = 1e-13;  // relative decrease in several iterations on end
};

struct Minimum {
  std::vector<double> at;
  double value = 0;
  int iterations = 0;
};

/// A local minimum by limited-memory BFGS (Nocedal and Wright, alg. 7.5) with a line search that
/// meets the weak Wolfe conditions, from `start`, which must have a finite value.
Minimum lbfgs(const Objective& objective, std::vector<double> start,
              const LbfgsOptions& options = {});

}  // namespace tandem
