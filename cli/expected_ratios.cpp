#include "cli/expected_ratios.h"

// A block model has half of the vanilla model's layers in each of its two decoders, all of one
// width d: W = 12 d^2 n / 2 weights a decoder, where the vanilla model has 2 W, and both have a
// head of V d. Per generated token, with blocks of L tokens:
//
// linear FLOP: 2 (W / L + (L + 1) / L W + V d) of 2 (2 W + V d). The block decoder works once in L
// tokens, the token decoder on L + 1 positions of a block, as a prefix of 2 stands for one token.
//
// Weights read, which at batch 1 are what decoding takes: (W + 2 d^2) / L + W + V d of 2 W + V d.
// The 2 d^2 expand a block embedding into the prefix.
//
// Keys and values: half of the layers keep them, for one position in L tokens, so 1 / (2 L) is
// stored; it is read once in L tokens, 1 / (2 L^2).
//
// Prompt: W / L of 2 W, as the token decoder does not see it.

namespace tandem {
namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t kBlockLength = 4;
constexpr double kVocabulary = 50'304;

struct Pair {
  int64_t block_parameters, vanilla_parameters;  // tables included
  double d_model, n_layers;                      // of the vanilla model
};
constexpr Pair kPairs[] = {
    {173'164'032, 162'322'944, 768, 12},   // main 85M, vanilla 160M
    {420'313'088, 405'334'016, 1024, 24},  // main 300M, vanilla 410M
};

Json ratios_of(const Pair& pair) {
  const double d2 = pair.d_model * pair.d_model, head = kVocabulary * pair.d_model;
  const double decoder = 12 * d2 * pair.n_layers / 2, vanilla = 2 * decoder + head;
  const double length = kBlockLength;
  return {{"against_parameters", pair.vanilla_parameters},
          {"linear_flops_per_token",
           vanilla / (decoder / length + (length + 1) / length * decoder + head)},
          {"state_bytes_per_context_token", 2 * kBlockLength},
          {"attention_flops_per_context_token", 2 * kBlockLength * kBlockLength},
          {"prefill_flops", 2 * kBlockLength},  // of long prompts a little more: less attention too
          {"decode_ms_per_token", vanilla / ((decoder + 2 * d2) / length + decoder + head)}};
}

}  // namespace

Json expected_ratios(const std::string& family, int64_t parameters) {
  if (family != "block_transformer") return {};
  for (const Pair& pair : kPairs) {
    if (pair.block_parameters == parameters) return ratios_of(pair);
  }
  return {};
}

}  // namespace tandem
