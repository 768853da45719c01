#pragma once
#include "blocktf/embedder.h"
#include "nn/linear.h"
#include "nn/norm.h"
#include "nn/run_unit.h"

namespace tandem {

inline constexpr double kEncoderStd = 0.02;  // of an encoder's weights and tables at the start

/// One layer of RoBERTa's encoder: every token of a sequence sees every other, and norms come after the residuals. Weights begin at N(0, 0.02), biases at 0.
/// Modules: q_proj, k_proj, v_proj, o_proj, attention_norm, up_proj, down_proj, ffn_norm. The official one drops out 0.1 in training; this one does not.
class EncoderLayer : public RunUnit {
 public:
  explicit EncoderLayer(const EncoderConfig& config);
  /// x: [M, S, E]; score_bias: [M, 1, 1, S] in float32 (float64 for float64), added to the scores of each key, or undefined. -> [M, S, E], run through context.runner.
  Tensor forward(const Tensor& x, const Tensor& score_bias, const ForwardContext& context);
  /// Multiply-adds times two of one sequence.
  double forward_flops(int64_t n_tokens) const;

 private:
  Tensor attend(const Tensor& x, const Tensor& score_bias) const;
  const int64_t d_embed_, n_heads_, head_dim_, ffn_dim_;
  Linear q_proj_{nullptr}, k_proj_{nullptr}, v_proj_{nullptr}, o_proj_{nullptr}, up_proj_{nullptr}, down_proj_{nullptr};
  LayerNorm attention_norm_{nullptr}, ffn_norm_{nullptr};
};

/// real: [M, S] bool -> what EncoderLayer adds to its scores in activations of `dtype`: 0, or the lowest number where a key is padding. Of a sequence that is padding as a whole
/// scores become equal, so that it attends uniformly, and their gradients stay.
Tensor score_bias_of(const Tensor& real, torch::Dtype dtype);

}  // namespace tandem
