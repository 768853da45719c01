#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "nn/checkpoint.h"
#include "nn/parameter.h"
#include "train/train_config.h"

namespace tandem {

/// What a step did. Tensors of one element on the model's device, so that nothing waits for it
/// before somebody looks.
struct StepOutcome {
  Tensor grad_norm;  // float64, before clipping
  Tensor skipped;    // float32, 1 when the step was skipped because a gradient or the loss was not
                     // finite
};

/// AdamW (Loshchilov and Hutter, 2019) on masters that keep every bit, with gradients added up over
/// micro-batches. A module in float32 or float64 shares its tensors with the masters; one in
/// bfloat16 holds them rounded.
class Optimizer {
 public:
  /// Takes the parameters of `model` as masters (float32, or float64 in tests; whole on one device)
  /// and gives the model `dtype`. From then on every backward pass adds its gradients to the main
  /// gradients and leaves none in the parameters.
  Optimizer(torch::nn::Module& model, torch::Dtype dtype, const OptimizerConfig& config);

  /// Forgets the main gradients.
  void zero_gradients();
  /// Clips the main gradients by their global norm and updates masters and module. Where a gradient
  /// or `loss` is not finite nothing changes.
  StepOutcome step(double lr, const Tensor& loss);

  /// Steps that were not skipped: what bias correction counts. Waits for the device.
  int64_t steps_taken() const;

  /// Masters and moments on the CPU, for a checkpoint.
  std::vector<std::pair<std::string, Tensor>> weights() const;
  std::vector<OptimizerPiece> pieces() const;
  /// Moments of `checkpoint`, with the steps they were made of. The masters are the caller's to
  /// load, before construction.
  void load(const Checkpoint& checkpoint, int64_t steps_taken);

  const std::vector<ParameterInfo>& parameters() const { return info_; }
  const Tensors& main_gradients() const { return gradients_; }

 private:
  struct Group {  // the same tensors, sorted by whether they decay
    double weight_decay;
    Tensors masters, gradients, exp_avg, exp_avg_sq;
  };
  OptimizerConfig config_;
  std::vector<ParameterInfo> info_;
  Tensors parameters_, masters_, gradients_, exp_avg_, exp_avg_sq_;
  std::vector<Group> groups_;
  bool shared_;         // parameters and masters are the same tensors
  Tensor steps_taken_;  // float32, one element on the device
};

}  // namespace tandem
