#include "train/optimizer.h"

#include <ATen/ops/_foreach_copy.h>
#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/_foreach_zero.h>
#include <ATen/ops/_fused_adamw.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

namespace tandem {
namespace {

/// Adds each gradient to the main gradient as soon as the backward pass has it, and frees it.
struct AddToMainGradient : torch::autograd::PostAccumulateGradHook {
  explicit AddToMainGradient(Tensor gradient) : main(std::move(gradient)) {}
  void operator()(const torch::autograd::Variable& parameter) override {
    main.add_(parameter.grad());
    parameter.mutable_grad().reset();
  }
  Tensor main;
};

}  // namespace

Optimizer::Optimizer(torch::nn::Module& model, torch::Dtype dtype, const OptimizerConfig& config)
    : config_(config), info_(parameters_info(model)), parameters_(model.parameters()), groups_(2) {
  TORCH_CHECK(!parameters_.empty() && parameters_.size() == info_.size(),
              "Optimizer: ", parameters_.size(), " parameters, ", info_.size(), " described");
  shared_ = parameters_.front().scalar_type() == dtype;
  groups_[0].weight_decay = config.weight_decay;
  groups_[1].weight_decay = 0;
  for (size_t i = 0; i < info_.size(); ++i) {
    Tensor& parameter = parameters_[i];
    TORCH_CHECK(
        parameter.is_floating_point() && parameter.element_size() >= 4 && parameter.is_contiguous(),
        "Optimizer: ", info_[i].name, " is ", parameter.toString(),
        ", expected contiguous float32 or float64");
    const Tensor master = parameter.detach();
    if (!shared_) parameter.set_data(master.to(dtype));
    masters_.push_back(master);
    gradients_.push_back(torch::zeros_like(master));
    exp_avg_.push_back(torch::zeros_like(master));
    exp_avg_sq_.push_back(torch::zeros_like(master));
    torch::autograd::impl::set_post_acc_grad_hooks(
        parameter, std::make_unique<AddToMainGradient>(gradients_[i]));

    Group& group = groups_[info_[i].decay ? 0 : 1];
    group.masters.push_back(masters_[i]);
    group.gradients.push_back(gradients_[i]);
    group.exp_avg.push_back(exp_avg_[i]);
    group.exp_avg_sq.push_back(exp_avg_sq_[i]);
  }
  std::erase_if(groups_, [](const Group& group) { return group.masters.empty(); });
  steps_taken_ = torch::zeros({}, masters_.front().options().dtype(torch::kFloat32));
}

void Optimizer::zero_gradients() { at::_foreach_zero_(gradients_); }

StepOutcome Optimizer::step(double lr, const Tensor& loss) {
  const torch::NoGradGuard no_grad;
  const Tensor norm = torch::stack(at::_foreach_norm(gradients_, 2)).to(torch::kFloat64).norm();
  // NaN and infinity survive the sums of squares, so the norm speaks for every gradient.
  const Tensor skipped =
      norm.isfinite().logical_and(loss.isfinite()).logical_not().to(torch::kFloat32);
  if (config_.clip_norm > 0) {
    const Tensor scale = (config_.clip_norm / norm).clamp_max(1.0);
    at::_foreach_mul_(gradients_, scale.to(gradients_.front().scalar_type()));
  }

  steps_taken_.add_(1 - skipped);
  for (Group& group : groups_) {
    const Tensors steps(group.masters.size(), steps_taken_);
    at::_fused_adamw_(group.masters, group.gradients, group.exp_avg, group.exp_avg_sq, {}, steps,
                      lr, config_.betas[0], config_.betas[1], group.weight_decay, config_.eps,
                      /*amsgrad=*/false, /*maximize=*/false, /*grad_scale=*/{}, skipped);
  }
  if (!shared_) at::_foreach_copy_(parameters_, masters_);
  return {norm, skipped};
}

int64_t Optimizer::steps_taken() const { return static_cast<int64_t>(steps_taken_.item<float>()); }

std::vector<std::pair<std::string, Tensor>> Optimizer::weights() const {
  std::vector<std::pair<std::string, Tensor>> weights;
  for (size_t i = 0; i < info_.size(); ++i) weights.emplace_back(info_[i].name, masters_[i].cpu());
  return weights;
}

std::vector<OptimizerPiece> Optimizer::pieces() const {
  std::vector<OptimizerPiece> pieces;
  const auto add = [&](const std::string& kind, const ParameterInfo& info, const Tensor& moment) {
    pieces.push_back({kind + "." + info.name, info.name, info.global_shape, 0, info.numel(),
                      moment.flatten().cpu()});
  };
  for (size_t i = 0; i < info_.size(); ++i) {
    add("exp_avg", info_[i], exp_avg_[i]);
    add("exp_avg_sq", info_[i], exp_avg_sq_[i]);
  }
  return pieces;
}

void Optimizer::load(const Checkpoint& checkpoint, int64_t steps_taken) {
  const auto fill = [&](const std::string& kind, const ParameterInfo& info, const Tensor& moment) {
    Tensor whole = torch::empty({info.numel()}, torch::kFloat32);
    checkpoint.load_optimizer(kind + "." + info.name, 0, whole);
    moment.copy_(whole.view_as(moment));
  };
  for (size_t i = 0; i < info_.size(); ++i) {
    fill("exp_avg", info_[i], exp_avg_[i]);
    fill("exp_avg_sq", info_[i], exp_avg_sq_[i]);
  }
  steps_taken_.fill_(steps_taken);
}

}  // namespace tandem
