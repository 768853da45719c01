#include "nn/norm.h"

#include <torch/csrc/autograd/custom_function.h>

#include <optional>

#include "nn/tensor_parallel.h"

// With r = (mean(x^2) + eps)^-1/2 and y = x r w: dw = sum over rows of g x r, and dx = r (g w - x
// r^2 mean(g w x)).

namespace tandem {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Keeps x and one number of each row; about half the time of autograd through the single operations
// on a CPU.
struct RmsNormFunction : torch::autograd::Function<RmsNormFunction> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const std::optional<Tensor>& weight,
                        double eps) {
    const auto wide = float_or_wider(x.scalar_type());
    const auto r = at::linalg_vector_norm(x, 2, {-1}, /*keepdim=*/true, wide)
                       .square_()
                       .div_(x.size(-1))
                       .add_(eps)
                       .rsqrt_();  // [..., 1]
    ctx->save_for_backward({x, weight.value_or(Tensor()), r});
    const auto normalised = (x * r).to(x.scalar_type());
    if (weight) normalised.mul_(*weight);
    return normalised;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    const auto saved = ctx->get_saved_variables();
    const auto &weight = saved[1], r = saved[2];
    const auto x = saved[0].to(r.scalar_type()), g = gradients[0].to(r.scalar_type());
    const auto gx = g * x;
    Tensor mean, dx, dweight;
    if (weight.defined()) {
      const auto w = weight.to(r.scalar_type());
      dweight = at::mv(gx.flatten(0, -2).t(), r.flatten()).to(weight.scalar_type());
      mean = at::matmul(gx, w).unsqueeze(-1);
      dx = g * w;
    } else {
      mean = gx.sum(-1, /*keepdim=*/true);
      dx = g.clone();
    }
    mean.mul_(r).mul_(r).div_(x.size(-1));
    dx.addcmul_(x, mean, -1).mul_(r);
    return {dx.to(saved[0].scalar_type()), dweight, {}};
  }
};

Tensor norm(const Tensor& x, const std::optional<Tensor>& weight, double eps) {
  if (!x.is_cuda()) return RmsNormFunction::apply(x, weight, eps);
  const auto normalised = at::rms_norm(x, {x.size(-1)}, /*weight=*/{}, eps);  // one kernel each way
  return weight ? normalised * *weight : normalised;
}

// LibTorch's kernels in float32: given bfloat16, those of a CPU sum the gradients of weight and
// bias over rows in bfloat16. Keeps x as it came and two numbers of each row.
struct LayerNormFunction : torch::autograd::Function<LayerNormFunction> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& weight,
                        const Tensor& bias, double eps) {
    const auto wide = float_or_wider(x.scalar_type());
    const auto [y, mean, r] =
        at::native_layer_norm(x.to(wide), {x.size(-1)}, weight.to(wide), bias.to(wide), eps);
    ctx->save_for_backward({x, weight, bias, mean, r});
    return y.to(x.scalar_type());
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    const auto saved = ctx->get_saved_variables();
    const auto &x = saved[0], weight = saved[1], bias = saved[2];
    const auto wide = float_or_wider(x.scalar_type());
    const auto [dx, dweight, dbias] = at::native_layer_norm_backward(
        gradients[0].to(wide), x.to(wide), {x.size(-1)}, saved[3], saved[4], weight.to(wide),
        bias.to(wide), {true, true, true});
    return {
        dx.to(x.scalar_type()), dweight.to(weight.scalar_type()), dbias.to(bias.scalar_type()), {}};
  }
};

}  // namespace

Tensor rms_norm(const Tensor& x, double eps) { return norm(x, /*weight=*/{}, eps); }

RmsNormImpl::RmsNormImpl(int64_t dim, double eps)
    : weight_(declare(*this, "weight", {dim}, init_constant(1), Split::kNone, /*decay=*/false)),
      eps_(eps) {}

Tensor RmsNormImpl::forward(const Tensor& x) const { return norm(x, weight_, eps_); }

HeadNormImpl::HeadNormImpl(int64_t head_dim, double eps)
    : weight_(declare(*this, "weight", {head_dim}, init_constant(1), Split::kNone,
                      /*decay=*/false)),
      eps_(eps) {}

Tensor HeadNormImpl::forward(const Tensor& x) const {
  return norm(x, copy_to_group(weight_, tensor_group()), eps_);  // this rank's heads only
}

LayerNormImpl::LayerNormImpl(int64_t dim, double eps)
    : weight_(declare(*this, "weight", {dim}, init_constant(1), Split::kNone, /*decay=*/false)),
      bias_(declare(*this, "bias", {dim}, init_constant(0), Split::kNone, /*decay=*/false)),
      eps_(eps) {}

Tensor LayerNormImpl::forward(const Tensor& x) const {
  if (!x.is_cuda()) return LayerNormFunction::apply(x, weight_, bias_, eps_);
  return at::layer_norm(x, {x.size(-1)}, weight_, bias_, eps_);  // in float32 by itself
}

}  // namespace tandem
