#include "train/optimizer.h"

#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/_fused_adamw.h>

#include <algorithm>
#include <string>

#include "core/error.h"
#include "core/log.h"

namespace tandem {
namespace {

/// Whether `name` is `pattern`, whose * stand for any characters.
bool fits(std::string_view name, std::string_view pattern) {
  const size_t star = pattern.find('*');
  if (star == pattern.npos) return name == pattern;
  if (!name.starts_with(pattern.substr(0, star))) return false;
  for (size_t i = star; i <= name.size(); ++i) {
    if (fits(name.substr(i), pattern.substr(star + 1))) return true;
  }
  return false;
}

bool fits_any(const std::string& name, const std::vector<std::string>& patterns) {
  return std::any_of(patterns.begin(), patterns.end(),
                     [&](const auto& pattern) { return fits(name, pattern); });
}

/// `pattern` with what stands behind its last * corrected to the end of some name; empty when none
/// is near.
std::string nearest_pattern(const std::string& pattern, const std::vector<ParameterInfo>& info) {
  const size_t tail = pattern.rfind('*') + 1;  // npos + 1 is 0
  std::vector<std::string> ends;
  for (const auto& parameter : info) {
    const std::string& name = parameter.name;
    ends.push_back(name);
    for (size_t dot = name.find('.'); tail > 0 && dot != name.npos; dot = name.find('.', dot + 1)) {
      ends.push_back(name.substr(dot));
      ends.push_back(name.substr(dot + 1));
    }
  }
  const std::string end = nearest(std::string_view(pattern).substr(tail), ends);
  const std::string corrected = pattern.substr(0, tail) + end;
  const bool any = std::any_of(info.begin(), info.end(), [&](const auto& parameter) {
    return fits(parameter.name, corrected);
  });
  return any && !end.empty() ? corrected : "";
}

/// Throws where a pattern fits no parameter; warns where groups before it leave a group none.
void check_groups(const std::vector<OptimizerGroupConfig>& groups,
                  const std::vector<ParameterInfo>& info) {
  std::vector<bool> decided(info.size());
  for (size_t g = 0; g < groups.size(); ++g) {
    const std::string key = "optimizer.groups[" + std::to_string(g) + "]";
    for (const auto& pattern : groups[g].parameters) {
      if (std::any_of(info.begin(), info.end(),
                      [&](const auto& parameter) { return fits(parameter.name, pattern); }))
        continue;
      const std::string near = nearest_pattern(pattern, info);
      throw bad_usage(key + ".parameters: \"" + one_line(pattern) +
                      "\" fits no parameter of the model" +
                      (near.empty() ? "" : "; did you mean \"" + near + "\"?"));
    }
    bool decides = false;
    for (size_t i = 0; i < info.size(); ++i) {
      if (decided[i] || !fits_any(info[i].name, groups[g].parameters)) continue;
      decided[i] = decides = true;
    }
    if (!decides)
      log_warning(key + " has no effect: the groups before it decide about all of its parameters");
  }
}

/// Fills `copy`, made anew unless it has the shape already.
void copy_to_cpu(const Tensor& from, at::IntArrayRef shape, Tensor& copy) {
  if (!copy.defined() || copy.sizes() != shape) {
    // Beside a GPU in memory that it can write to itself.
    copy = torch::empty(shape, torch::TensorOptions(torch::kFloat32).pinned_memory(from.is_cuda()));
  }
  copy.copy_(from.view(shape));
}

}  // namespace

Optimizer::Optimizer(std::unique_ptr<Sharding> sharding, const OptimizerConfig& config)
    : config_(config), sharding_(std::move(sharding)) {
  check_groups(config.groups, sharding_->parameters());
  for (const OwnedPart& part : sharding_->parts()) {
    gradients_.push_back(part.gradient);
    exp_avg_.push_back(torch::zeros_like(part.master));
    exp_avg_sq_.push_back(torch::zeros_like(part.master));
    Group& group = group_of(info_of(part));
    group.masters.push_back(part.master);
    group.gradients.push_back(part.gradient);
    group.exp_avg.push_back(exp_avg_.back());
    group.exp_avg_sq.push_back(exp_avg_sq_.back());
  }
  steps_taken_ =
      torch::zeros({}, torch::TensorOptions().dtype(torch::kFloat32).device(sharding_->device()));
}

Optimizer::Optimizer(torch::nn::Module& model, torch::Dtype dtype, const OptimizerConfig& config)
    : Optimizer(
          [&] {
            const Tensor any = model.parameters().front();
            return std::make_unique<Sharding>(
                model, this_process(),
                ShardingOptions{.dtype = dtype, .master_dtype = any.scalar_type()}, any.device(),
                weights_in(model));
          }(),
          config) {}

/// How the config treats a parameter: as the first of its groups that names it says, or else by
/// whether it decays.
Optimizer::Group& Optimizer::group_of(const ParameterInfo& info) {
  double weight_decay = info.decay ? config_.weight_decay : 0, lr_scale = 1;
  for (const auto& named : config_.groups) {
    if (!fits_any(info.name, named.parameters)) continue;
    weight_decay = named.weight_decay.value_or(weight_decay);
    lr_scale = named.lr_scale;
    break;
  }
  for (Group& group : groups_) {
    if (group.weight_decay == weight_decay && group.lr_scale == lr_scale) return group;
  }
  return groups_.emplace_back(Group{weight_decay, lr_scale, {}, {}, {}, {}});
}

/// The norm of all gradients, float64. Each rank's is that of its parts, then come the ranks that
/// hold others; a parameter that several ranks of the tensor group hold whole counts once.
Tensor Optimizer::global_norm() const {
  Mesh& mesh = sharding_->mesh();
  Tensors counted;
  for (size_t i = 0; i < gradients_.size(); ++i) {
    const ParameterInfo& info = info_of(sharding_->parts()[i]);
    if (info.divided() || mesh.tensor->rank() == 0) counted.push_back(gradients_[i]);
  }
  const auto options = steps_taken_.options().dtype(torch::kFloat64);
  Tensor norm = counted.empty()
                    ? torch::zeros({}, options)
                    : torch::stack(at::_foreach_norm(counted, 2)).to(torch::kFloat64).norm();
  for (Communicator* group : {mesh.shard.get(), mesh.tensor.get()}) {
    if (group->size() == 1) continue;
    Tensor norms = torch::empty({group->size()}, options);
    group->all_gather(norms, norm.view({1}))->wait();
    norm = norms.norm();
  }
  return norm;
}

StepOutcome Optimizer::step(double lr, const Tensor& loss, std::optional<double> loss_limit) {
  const torch::NoGradGuard no_grad;
  const Tensor norm = global_norm();
  // NaN and infinity survive the sums of squares, so the norm speaks for every gradient.
  Tensor good = norm.isfinite().logical_and(loss.isfinite());
  if (loss_limit) good = good.logical_and(loss.to(torch::kFloat64).le(*loss_limit));
  const Tensor skipped = good.logical_not().to(torch::kFloat32);
  if (config_.clip_norm > 0 && !gradients_.empty()) {
    const Tensor scale = (config_.clip_norm / norm).clamp_max(1.0);
    at::_foreach_mul_(gradients_, scale.to(gradients_.front().scalar_type()));
  }

  steps_taken_.add_(1 - skipped);
  for (Group& group : groups_) {
    const Tensors steps(group.masters.size(), steps_taken_);
    at::_fused_adamw_(group.masters, group.gradients, group.exp_avg, group.exp_avg_sq, {}, steps,
                      lr * group.lr_scale, config_.betas[0], config_.betas[1], group.weight_decay,
                      config_.eps,
                      /*amsgrad=*/false, /*maximize=*/false, /*grad_scale=*/{}, skipped);
  }
  sharding_->publish_weights();
  return {norm, skipped};
}

int64_t Optimizer::steps_taken() const { return static_cast<int64_t>(steps_taken_.item<float>()); }

void Optimizer::snapshot(CheckpointContents& contents) const {
  size_t used = 0;
  const auto copy = [&](std::vector<TensorPiece>& pieces, size_t i, const std::string& kind,
                        const OwnedPart& part, const Tensor& values) {
    pieces.resize(std::max(pieces.size(), i + 1));
    const ParameterInfo& info = info_of(part);
    Tensor data = pieces[i].data;
    copy_to_cpu(values, {part.end - part.begin}, data);
    pieces[i] = piece_of(kind, info, part.begin, part.end, data);
  };
  const auto& parts = sharding_->parts();
  for (size_t i = 0; i < parts.size(); ++i) {
    if (!sharding_->speaks_for(parts[i])) continue;
    copy(contents.weights, used, "", parts[i], parts[i].master);
    copy(contents.optimizer, 2 * used, "exp_avg", parts[i], exp_avg_[i]);
    copy(contents.optimizer, 2 * used + 1, "exp_avg_sq", parts[i], exp_avg_sq_[i]);
    ++used;
  }
  contents.weights.resize(used);
  contents.optimizer.resize(2 * used);
}

void Optimizer::load(const Checkpoint& checkpoint, int64_t steps_taken) {
  const auto fill = [&](const std::string& kind, const OwnedPart& part, const Tensor& moment) {
    Tensor values = torch::empty({part.end - part.begin}, torch::kFloat32);
    checkpoint.load_part(kind, info_of(part), part.begin, part.end, values);
    moment.copy_(values.view_as(moment));
  };
  const auto& parts = sharding_->parts();
  for (size_t i = 0; i < parts.size(); ++i) {
    fill("exp_avg", parts[i], exp_avg_[i]);
    fill("exp_avg_sq", parts[i], exp_avg_sq_[i]);
  }
  steps_taken_.fill_(steps_taken);
}

}  // namespace tandem
