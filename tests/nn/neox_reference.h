#pragma once
#include <torch/types.h>

#include <cmath>
#include <functional>
#include <string>

#include "nn/neox_layer.h"

// GPT-NeoX's layer in plain arithmetic: one row, token by token, head by head.

namespace tandem {

/// The weight of a name.
using Weights = std::function<Tensor(const std::string& name)>;

inline Tensor layer_norm_of(const Tensor& x, const Weights& weight, const std::string& name,
                            double eps) {
  const auto centred = x - x.sum(-1, true) / x.size(-1);
  const auto variance = centred.square().sum(-1, true) / x.size(-1);
  return centred / (variance + eps).sqrt() * weight(name + ".weight") + weight(name + ".bias");
}

inline Tensor linear_of(const Tensor& x, const Weights& weight, const std::string& name) {
  return torch::mm(x, weight(name + ".weight").t()) + weight(name + ".bias");
}

inline Tensor gelu_of(const Tensor& x, const std::string& activation) {
  if (activation == "gelu") return 0.5 * x * (1 + torch::erf(x / std::sqrt(2.0)));
  const double scale = std::sqrt(2 / std::acos(-1.0));
  return 0.5 * x * (1 + torch::tanh(scale * (x + 0.044715 * x * x * x)));
}

/// x: [H, K], at position t, the first `rotated` channels of each head in halves.
inline Tensor rotated_of(const Tensor& x, int64_t t, int64_t rotated, double base) {
  auto channels = x.unbind(1);
  for (int64_t i = 0; i < rotated / 2; ++i) {
    const double angle = static_cast<double>(t) *
                         std::pow(base, -2 * static_cast<double>(i) / static_cast<double>(rotated));
    const auto a = x.select(1, i), b = x.select(1, i + rotated / 2);
    channels[i] = a * std::cos(angle) - b * std::sin(angle);
    channels[i + rotated / 2] = b * std::cos(angle) + a * std::sin(angle);
  }
  return torch::stack(channels, 1);
}

/// x: [T, D] -> [T, D]. `rotated`: channels of each head that are, 0 = none.
inline Tensor neox_layer_of(const Tensor& x, const NeoxLayerSpec& spec, int64_t rotated,
                            const Weights& weight, const std::string& at) {
  const int64_t n = x.size(0);
  const auto normed = layer_norm_of(x, weight, at + "mixer_norm", spec.norm_eps);
  const auto heads = [&](const char* name) {
    return linear_of(normed, weight, at + "mixer." + name).view({n, spec.n_heads, spec.head_dim});
  };
  const auto turned = [&](const Tensor& y) {
    if (rotated == 0) return y;
    Tensors tokens;
    for (int64_t t = 0; t < n; ++t) tokens.push_back(rotated_of(y[t], t, rotated, *spec.rope.base));
    return torch::stack(tokens);
  };
  const auto q = turned(heads("q_proj")), k = turned(heads("k_proj")), v = heads("v_proj");
  Tensors mixed;
  for (int64_t t = 0; t < n; ++t) {
    for (int64_t h = 0; h < spec.n_heads; ++h) {
      const auto keys = k.select(1, h).narrow(0, 0, t + 1);
      const auto p =
          (torch::mv(keys, q[t][h]) / std::sqrt(static_cast<double>(spec.head_dim))).exp();
      mixed.push_back(torch::mv(v.select(1, h).narrow(0, 0, t + 1).t(), p / p.sum()));
    }
  }
  const auto attention = linear_of(torch::cat(mixed).view({n, -1}), weight, at + "mixer.o_proj");
  const auto ffn = [&](const Tensor& y) {
    const auto up = linear_of(layer_norm_of(y, weight, at + "ffn_norm", spec.norm_eps), weight,
                              at + "ffn.up_proj");
    return linear_of(gelu_of(up, spec.activation), weight, at + "ffn.down_proj");
  };
  if (spec.parallel_residual) return x + attention + ffn(x);
  const auto y = x + attention;
  return y + ffn(y);
}

}  // namespace tandem
