#pragma once
#include <functional>
#include <string>

#include "nn/parameter.h"

namespace tandem {

/// Bytes that one rank gives to the others of its tensor group, as Traffic counts them.
struct TensorTraffic {
  double forward = 0;   // of the loss: what rows of heads and widths add up to, looked up embeddings, the loss's sums and the gradient that it forms
  double backward = 0;  // gradients of what each rank reads whole
  double again = 0;     // more, where every layer is recomputed
};

/// How many tokens pass a module, by its full name, in one micro-batch: rows times length in a model that is one stack.
using TokensThrough = std::function<double(const std::string& module)>;

/// Of loss() and backward() of one micro-batch with `n_scored` scored targets, by counting the modules of `model`, which split_over() divided over `ranks`:
///   an all-reduce of n elements of s bytes takes 2 (ranks - 1) / ranks n s; there is one
///   of tokens x D each way for an attention, a retention and a feed-forward, in the backward pass also for a maker of shared keys and values,
///   of tokens x D forward for a table of the vocabulary, of n_scored x (D s + 3 numbers in float32 or wider) for the loss,
///   of a weight in the backward pass where there are fewer key/value heads than ranks, and of the weight of a norm of heads.
TensorTraffic tensor_traffic(const torch::nn::Module& model, int64_t ranks, const TokensThrough& tokens, double n_scored, int64_t element_size);

}  // namespace tandem
