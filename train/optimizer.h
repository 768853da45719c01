#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "nn/checkpoint.h"
#include "nn/parameter.h"
#include "train/sharding.h"
#include "train/train_config.h"

namespace tandem {

/// What a step did. Tensors of one element on the model's device, so that nothing waits for it
/// before somebody looks.
struct StepOutcome {
  Tensor grad_norm;  // float64, before clipping
  Tensor skipped;  // float32, 1 when nothing changed: a gradient or the loss was not finite, or the
                   // loss was above the limit
};

/// AdamW (Loshchilov and Hutter, 2019) on the masters that this rank owns. A module in float32 or
/// float64 shares its tensors with the masters; one in bfloat16 holds them rounded.
class Optimizer {
 public:
  /// Updates the parts of `sharding`. Throws UserError (exit code 2) naming a pattern of
  /// config.groups that fits no parameter.
  Optimizer(std::unique_ptr<Sharding> sharding, const OptimizerConfig& config);
  /// The same on one process: takes the parameters of `model` as masters (float32, or float64 in
  /// tests; whole on one device) and gives the model `dtype`.
  Optimizer(torch::nn::Module& model, torch::Dtype dtype, const OptimizerConfig& config);

  /// Forgets the main gradients.
  void zero_gradients() { sharding_->zero_gradients(); }
  /// Clips the main gradients by their global norm and updates masters and module. Where a gradient
  /// or `loss` is not finite, or `loss` is above `loss_limit`, nothing changes. `loss` and the
  /// gradients are those of all ranks.
  StepOutcome step(double lr, const Tensor& loss, std::optional<double> loss_limit = {});

  /// Steps that were not skipped: what bias correction counts. Waits for the device.
  int64_t steps_taken() const;

  /// Masters and moments that this rank speaks for on the CPU, for a checkpoint: weights and
  /// optimizer pieces of `contents`.
  /// They are copies, so that training can go on while they are written; tensors that `contents`
  /// already holds from an earlier call are filled again. Waits for the device.
  void snapshot(CheckpointContents& contents) const;
  /// Moments of `checkpoint`, with the steps they were made of. The masters are the caller's to
  /// load, before construction.
  void load(const Checkpoint& checkpoint, int64_t steps_taken);

  Sharding& sharding() { return *sharding_; }
  const Tensors& main_gradients() const { return gradients_; }  ///< of the owned parts
  /// Of all owned parts: to compare ranks, in the order of parameters.
  const Tensors& exp_avg() const { return exp_avg_; }
  const Tensors& exp_avg_sq() const { return exp_avg_sq_; }

 private:
  struct Group {  // the same tensors, sorted by how they are treated
    double weight_decay, lr_scale;
    Tensors masters, gradients, exp_avg, exp_avg_sq;
  };
  Group& group_of(const ParameterInfo& info);
  Tensor global_norm() const;
  const ParameterInfo& info_of(const OwnedPart& part) const {
    return sharding_->parameters()[part.parameter];
  }
  OptimizerConfig config_;
  std::unique_ptr<Sharding> sharding_;
  Tensors gradients_, exp_avg_, exp_avg_sq_;  // of the parts, in their order
  std::vector<Group> groups_;
  Tensor steps_taken_;  // float32, one element on the device
};

}  // namespace tandem
