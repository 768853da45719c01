#pragma once
#include <span>
#include <string>
#include <vector>

#include "eval/lbfgs.h"

namespace tandem {

// Loss laws L = floor + sum over k of coefficient_k * x_k ^ -exponent_k: with x = (N, D) the law of
// parameters and tokens, with x = (C) that of compute. Fitted as Hoffmann et al. (2022, app. D.3)
// do: the Huber loss of the residuals of log L, the law's own log taken through log-sum-exp.

/// Runs: what each was given and what it came to. All values > 0.
struct LossPoints {
  std::vector<std::vector<double>> x;  // [terms][runs]
  std::vector<double> loss;            // [runs]
  size_t size() const { return loss.size(); }
  LossPoints select(std::span<const size_t> runs) const;
};

constexpr double kHuberDelta = 1e-3;

/// r^2 / 2 up to |r| = delta, a line of the same slope beyond.
double huber(double r, double delta);

/// The sum (never the mean, whose small gradients end a descent early) of the Huber terms of
/// log L(x_i) - log loss_i. Parameters: log floor, then for each term its log at the geometric mean
/// of x_k, and its exponent: around the mean a term's size and its exponent hardly disturb each
/// other.
class LossLawObjective {
 public:
  explicit LossLawObjective(const LossPoints& points, double delta = kHuberDelta);
  double operator()(std::span<const double> parameters, std::span<double> gradient) const;
  size_t parameters() const { return 1 + 2 * x_.size(); }
  double mean_log_x(size_t term) const { return means_[term]; }

 private:
  std::vector<std::vector<double>> x_;  // log x_k - its mean
  std::vector<double> means_, log_loss_;
  double delta_;
};

struct LossLaw {
  double floor = 0;                                 // the loss that is left when all x are infinite
  std::vector<double> log_coefficients, exponents;  // [terms]; of noise, coefficients may overflow
  double objective = 0;                             // sum of Huber terms
  double rmse = 0;                                  // of log L
  double operator()(std::span<const double> x) const;
};

/// The lowest minimum that L-BFGS finds from a grid of starts: shares of the floor and of each
/// term, and exponents. With `near`, from that law and some around it instead: for resampled runs.
LossLaw fit_loss_law(const LossPoints& points, const LossLaw* near = nullptr);

}  // namespace tandem
