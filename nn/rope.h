#pragma once
#include <optional>
#include <string>

#include "core/config.h"
#include "nn/parameter.h"

namespace tandem {

/// Rotary positions of one decoder. `base: none` switches them off.
struct RopeConfig {
  std::optional<double> base = 10000.0;
  std::string pairs = "halves";        // halves: channels (i, i + K/2); interleaved: (2i, 2i + 1)
  std::string exponents = "standard";  // standard: 2i / K; inclusive: i / (K/2 - 1), both ends of [0, 1] (YOCO's code)
  double fraction = 1;                 // of a head's channels, from its first on, that are rotated (GPT-NeoX: 0.25); their number is K here
  template <typename Visitor>
  void fields(Visitor& visit) {
    fields_of_whole_heads(visit);
    visit.value("fraction", fraction, in_range(0, 1));
  }
  template <typename Visitor>
  void fields_of_whole_heads(Visitor& visit) {
    visit.optional_or_none("base", base, above(0));
    visit.one_of("pairs", pairs, {"interleaved", "halves"});
    visit.one_of("exponents", exponents, {"inclusive", "standard"});
  }
};

/// Cosines and sines of a call's positions. Mixers and SharedKvMaker make their own; the cross-decoder's layers share one.
struct RopeTable {
  Tensor cos, sin;  // [B, T, 1, K/2] in float32 (float64 for float64 activations); undefined when rotary is off
};
/// Channels of a head of head_dim that are rotated: fraction * head_dim rounded down.
int64_t rotated_channels(const RopeConfig& config, int64_t head_dim);
/// A rule of the struct whose section "rope" is `rope`: it rotates an even number of channels, at least 2, or is switched off.
void check_rope(Checker& check, const RopeConfig& rope, int64_t head_dim);
/// `dtype` is the activations': angles and phases are float32 unless it is float64. The rotated channels are an even number.
RopeTable make_rope_table(const RopeConfig& config, int64_t head_dim, const Tensor& positions, torch::Dtype dtype);
/// x: [B, T, H, K] with its first channels, as many as the table was made for, rotated by its positions; unchanged when the table is undefined. Computed in float32, rounded once to x's dtype.
Tensor apply_rope(const Tensor& x, const RopeTable& table, const RopeConfig& config);

}  // namespace tandem
