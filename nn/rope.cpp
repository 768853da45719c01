#include "nn/rope.h"

#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "core/yaml_scalar.h"

namespace tandem {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Every pair (a, b) -> (a cos - b sin, b cos + a sin); channels behind the pairs pass.
Tensor rotate(const Tensor& x, const Tensor& cos, const Tensor& sin, bool interleaved) {
  const int64_t rotated = 2 * cos.size(-1);
  if (rotated < x.size(-1)) {
    const auto passed = x.narrow(-1, rotated, x.size(-1) - rotated);
    return at::cat({rotate(x.narrow(-1, 0, rotated), cos, sin, interleaved), passed}, -1);
  }
  const auto wide = x.to(cos.scalar_type());
  const int64_t n_pairs = x.size(-1) / 2;
  if (interleaved) {  // a pair is a complex number
    const auto pairs = at::view_as_complex(wide.contiguous().unflatten(-1, {n_pairs, 2}));
    return at::view_as_real(pairs * at::complex(cos, sin)).flatten(-2).to(x.scalar_type());
  }
  auto out = torch::empty(wide.sizes(), wide.options());
  const auto a = wide.narrow(-1, 0, n_pairs), b = wide.narrow(-1, n_pairs, n_pairs);
  auto out_a = out.narrow(-1, 0, n_pairs), out_b = out.narrow(-1, n_pairs, n_pairs);
  at::mul_out(out_a, a, cos).addcmul_(b, sin, -1);
  at::mul_out(out_b, b, cos).addcmul_(a, sin);
  return out.to(x.scalar_type());
}

// Keeps no copy of x: the gradient is rotated back.
struct Rotation : torch::autograd::Function<Rotation> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& cos, const Tensor& sin,
                        bool interleaved) {
    ctx->save_for_backward({cos, sin});
    ctx->saved_data["interleaved"] = interleaved;
    return rotate(x, cos, sin, interleaved);
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    const auto saved = ctx->get_saved_variables();
    const bool interleaved = ctx->saved_data["interleaved"].toBool();
    return {rotate(gradients[0], saved[0], saved[1].neg(), interleaved), {}, {}, {}};
  }
};

// Stands in the place of the section.
struct RuleOfFraction {
  const RopeConfig& rope;
  int64_t head_dim;
  template <typename Visitor>
  void fields(Visitor&) {}
  void check(Checker& check) const {
    const int64_t rotated = rotated_channels(rope, head_dim);
    check.require(!rope.base || (rotated >= 2 && rotated % 2 == 0), "fraction",
                  number_text(rope.fraction),
                  "one that rotates an even number, at least 2, of a head's " +
                      std::to_string(head_dim) + " channels");
  }
};

}  // namespace

int64_t rotated_channels(const RopeConfig& config, int64_t head_dim) {
  return static_cast<int64_t>(config.fraction * static_cast<double>(head_dim));
}

void check_rope(Checker& check, const RopeConfig& rope, int64_t head_dim) {
  RuleOfFraction rule{rope, head_dim};
  check.section("rope", rule);
}

RopeTable make_rope_table(const RopeConfig& config, int64_t head_dim, const Tensor& positions,
                          torch::Dtype dtype) {
  if (!config.base) return {};
  const int64_t rotated = rotated_channels(config, head_dim);
  TORCH_CHECK(rotated > 0 && rotated % 2 == 0,
              "rotary positions need an even number of channels, got ", rotated);
  const int64_t n_pairs = rotated / 2;
  const int64_t one = config.exponents == "inclusive" ? std::max<int64_t>(n_pairs - 1, 1) : n_pairs;
  const auto exponents =
      torch::arange(n_pairs, positions.options().dtype(torch::kFloat64)) / static_cast<double>(one);
  // Angles are rounded before they meet a position, as models are trained: at position 10^6 exact
  // phases differ by 0.06.
  const auto wide = float_or_wider(dtype);
  const auto angles = at::pow(*config.base, -exponents).to(wide);                // [K/2]
  const auto phases = (positions.to(wide).unsqueeze(-1) * angles).unsqueeze(2);  // [B, T, 1, K/2]
  return {phases.cos(), phases.sin()};
}

Tensor apply_rope(const Tensor& x, const RopeTable& table, const RopeConfig& config) {
  if (!table.cos.defined()) return x;
  const int64_t rotated = 2 * table.cos.size(3);
  TORCH_CHECK(x.dim() == 4 && rotated_channels(config, x.size(3)) == rotated, "apply_rope: x is ",
              x.sizes(), ", the table was made for ", rotated, " rotated channels");
  return Rotation::apply(x, table.cos, table.sin, config.pairs == "interleaved");
}

}  // namespace tandem
