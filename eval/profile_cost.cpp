#include "eval/profile_cost.h"

#include <algorithm>
#include <cstdlib>

#include "nn/parameter.h"

// Keys and values that a step reads are counted off the FLOPs of attention: of a token of context,
// a layer of H query heads spends 4 H K and reads 2 G K elements, G key/value heads of K channels.
// So a YOCO, which stores them once, reads them once a layer of its cross-decoder, and a Block
// Transformer once a block. Weights that a step reads are half of its FLOPs without context, as
// each takes part in one multiply-add: an embedding table is then not read, the head is. No part
// reads more than it has, tables left out: that of a Block Transformer's tokens works on more
// positions than it adds.

namespace tandem {
namespace {

constexpr int64_t kFar = int64_t{1} << 24;  // tokens; beyond every window
// Activations that a layer holds at once, in units of the widest: measured 4 to 10 on a CPU.
constexpr double kWidestAtOnce = 10;

double number_or(const ConfigNode& map, const char* key, double absent) {
  const ConfigNode* node = map.find(key);
  const double value = node ? std::atof(node->scalar.c_str()) : 0;
  return value > 0 ? value : absent;
}

/// Of the attention whose cache grows: the first section of n_heads that is neither a window, a
/// retention nor a part that holds one block.
std::optional<double> queries_per_key(const ConfigNode& node) {
  for (const ConfigNode& item : node.items) {
    if (const auto found = queries_per_key(item)) return found;
  }
  for (const char* section : {"block_decoder", "cross_decoder", "mixers"}) {
    const ConfigNode* child = node.find(section);
    if (!child) continue;
    if (const auto found = queries_per_key(*child)) return found;
  }
  const ConfigNode* name = node.find("name");
  if (!node.find("n_heads") || (name && name->scalar != "full_attention")) return std::nullopt;
  const double heads = number_or(node, "n_heads", 1);
  return heads / number_or(node, "n_kv_heads", heads);
}

int64_t widest_activation(const LanguageModel& model) {
  int64_t widest = 1;
  for (const ParameterInfo& info : parameters_info(model)) {
    for (const int64_t size : info.global_shape)
      if (size != model.vocab_size()) widest = std::max(widest, size);
  }
  return widest;
}

/// Of the module that a part of the FLOPs is named after, tables left out; nothing where none is.
std::optional<double> weights_of_part(const LanguageModel& model, const std::string& part) {
  int64_t sum = 0;
  for (const ParameterInfo& info : parameters_info(model)) {
    const auto& shape = info.global_shape;
    const bool is_table = std::find(shape.begin(), shape.end(), model.vocab_size()) != shape.end();
    if (info.name.starts_with(part + ".") && !is_table) sum += info.numel();
  }
  return sum > 0 ? std::optional(static_cast<double>(sum)) : std::nullopt;
}

/// By a call whose FLOPs are `used`. The head has no module of its own where embeddings are tied: a
/// call has the logits of one token.
double weights_read(const LanguageModel& model, const Flops& used) {
  double sum = 0;
  for (const auto& [part, flops] : used.parts)
    sum += std::min(flops / 2, weights_of_part(model, part).value_or(flops / 2));
  return sum;
}

double growth(const auto& of_length) {
  return static_cast<double>(of_length(2 * kFar) - of_length(kFar)) / static_cast<double>(kFar);
}

}  // namespace

InferenceCost::InferenceCost(const LanguageModel& model, const ConfigNode& config,
                             torch::Dtype dtype, torch::Dtype cache_dtype)
    : model_(model),
      cache_dtype_(cache_dtype),
      element_size_(static_cast<int64_t>(torch::elementSize(dtype))) {
  weight_bytes_ = static_cast<double>(count_parameters(model) * element_size_);
  widest_ = widest_activation(model);
  const ConfigNode* section = config.find("model");
  if (section) queries_per_key_ = queries_per_key(*section).value_or(1);
}

InferenceMemory InferenceCost::memory(const InferenceLength& tokens, int64_t rows,
                                      int64_t prefill_chunk) const {
  const int64_t piece = prefill_chunk > 0 ? std::min(prefill_chunk, tokens.prompt) : tokens.prompt;
  const auto n_rows = static_cast<double>(rows);
  const double activations = kWidestAtOnce * static_cast<double>(piece * widest_ * element_size_),
               logits = static_cast<double>(2 * 4 * model_.vocab_size());  // and what is sampled
  return {weight_bytes_, n_rows * static_cast<double>(cache(tokens.total()).total()),
          n_rows * (activations + logits)};
}

int64_t InferenceCost::rows_within(double bytes, const InferenceLength& tokens,
                                   int64_t prefill_chunk) const {
  const double of_a_row = memory(tokens, 1, prefill_chunk).total() - weight_bytes_;
  return std::max<int64_t>(0, static_cast<int64_t>((bytes - weight_bytes_) / of_a_row));
}

StateBytes InferenceCost::cache(int64_t length) const {
  return model_.state_bytes(length, cache_dtype_);
}

double InferenceCost::bytes_per_token(torch::Dtype cache_dtype) const {
  return growth([&](int64_t n) { return model_.state_bytes(n, cache_dtype).total(); });
}

Flops InferenceCost::prefill_flops(const InferenceLength& tokens, int64_t rows) const {
  return model_.flops(Phase::kPrefill, tokens.prompt, rows);
}

Flops InferenceCost::decode_flops(const InferenceLength& tokens) const {
  return model_.flops(Phase::kDecode, tokens.prompt + tokens.generated / 2, 1);
}

double InferenceCost::prefill_bytes(const InferenceLength& tokens) const {
  return weights_read(model_, prefill_flops(tokens, 1)) * static_cast<double>(element_size_);
}

double InferenceCost::decode_bytes(const InferenceLength& tokens, int64_t rows) const {
  const auto flops_after = [&](int64_t n) { return model_.flops(Phase::kDecode, n, 1).total(); };
  const int64_t length = tokens.prompt + tokens.generated / 2;
  const auto context = static_cast<double>(length);
  const double weights =
      weights_read(model_, model_.flops(Phase::kDecode, 0, 1)) * static_cast<double>(element_size_);
  const double wide = bytes_per_token(torch::kFloat32);  // 0: no keys are held for good
  const double bytes_per_element = wide > 0 ? sizeof(float) * cache_bytes_per_token() / wide : 0;
  const double keys = context * growth(flops_after) / 2 / queries_per_key_ * bytes_per_element;
  const double constant =  // windows and retention states, read and written
      2 *
      std::max(0.0, static_cast<double>(cache(length).total()) - context * cache_bytes_per_token());
  return weights + static_cast<double>(rows) * (keys + constant);
}

InferenceSeconds InferenceCost::at_pace(const Pace& pace, const InferenceLength& tokens,
                                        int64_t rows) const {
  return {prefill_flops(tokens, rows).total() / pace.prefill_flops_per_s,
          static_cast<double>(rows) * decode_flops(tokens).total() / pace.decode_flops_per_s};
}

Pace InferenceCost::pace_of(const InferenceSeconds& taken, const InferenceLength& tokens,
                            int64_t rows) const {
  return {tokens.total(), prefill_flops(tokens, rows).total() / taken.prefill,
          static_cast<double>(rows) * decode_flops(tokens).total() / taken.decode_step};
}

InferenceSeconds InferenceCost::at_peak(const Peaks& peaks, const InferenceLength& tokens,
                                        int64_t rows) const {
  const double flops = static_cast<double>(rows) * decode_flops(tokens).total();
  return {std::max(prefill_flops(tokens, rows).total() / peaks.flops,
                   prefill_bytes(tokens) / peaks.bytes_per_s),
          std::max(flops / peaks.flops, decode_bytes(tokens, rows) / peaks.bytes_per_s)};
}

}  // namespace tandem
