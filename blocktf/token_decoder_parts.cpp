#include "blocktf/token_decoder_parts.h"

#include <array>
#include <cmath>

#include "core/error.h"

namespace tandem {

Linear make_expansion(const TokenDecoderSpec& spec, int64_t n_vectors, int64_t d_model) {
  const Init init = init_normal(1 / std::sqrt(static_cast<double>(spec.d_context)));
  return Linear(spec.d_context, n_vectors * d_model, init, Split::kNone, /*bias=*/true);
}

void check_bos(int64_t bos_id, const TokenDecoderSpec& spec) {
  if (bos_id < spec.vocab_size) return;
  throw bad_usage("model.token_decoder.bos_id = " + std::to_string(bos_id) +
                  ", expected less than model.vocab_size (" + std::to_string(spec.vocab_size) +
                  ")");
}

void check_blocks(const TokenDecoderSpec& spec, const Tensor& context, const Tensor& tokens,
                  const Tensor& real) {
  TORCH_CHECK(context.dim() == 2 && context.size(1) == spec.d_context, "token decoder: context ",
              context.sizes(), ", expected [M, ", spec.d_context, "]");
  const std::array<int64_t, 2> sizes = {context.size(0), spec.block_length - 1};
  const torch::IntArrayRef expected = sizes;
  TORCH_CHECK(tokens.sizes() == expected, "token decoder: tokens ", tokens.sizes(), ", expected ",
              expected);
  TORCH_CHECK(!real.defined() || (real.sizes() == expected && real.dtype() == torch::kBool),
              "token decoder: real is ", real.sizes(), " ", real.dtype(), ", expected ", expected,
              " bool");
}

void check_begin(const TokenDecoderSpec& spec, const Tensor& context, const Tensor& tokens) {
  TORCH_CHECK(context.dim() == 2 && context.size(1) == spec.d_context, "token decoder: context ",
              context.sizes(), ", expected [B, ", spec.d_context, "]");
  TORCH_CHECK(
      tokens.dim() == 2 && tokens.size(0) == context.size(0) && tokens.size(1) < spec.block_length,
      "token decoder: tokens ", tokens.sizes(), ", expected [", context.size(0), ", n] with n < ",
      spec.block_length);
}

void check_step(const TokenDecoderSpec& spec, int64_t n_tokens) {
  TORCH_CHECK(n_tokens < spec.block_length - 1, "token decoder: a block of ", spec.block_length,
              " has no prediction after its last token");
}

KeptInputs::KeptInputs(const Tensor& first_context, const Tensor& first_inputs,
                       const StateShape& shape)
    : context(first_context.to(float_or_wider(first_context.scalar_type()))),
      inputs(first_inputs.to(context.scalar_type())),
      runner(shape.runner) {}

void KeptInputs::append(const Tensor& x) {
  inputs = torch::cat({inputs, x.to(inputs.scalar_type())}, 1);
}

std::unique_ptr<LocalState> KeptInputs::select(const Tensor& rows) const {
  auto selected = std::make_unique<KeptInputs>();
  selected->context = context.index_select(0, rows);
  selected->inputs = inputs.index_select(0, rows);
  selected->runner = runner;
  return selected;
}

}  // namespace tandem
