#include "cli/hf_form.h"

#include <stdexcept>

#include "cli/build_model.h"
#include "core/error.h"

namespace tandem {
namespace {

constexpr int64_t kMostLayers = 10'000;
constexpr const char* kScaled = "scaled rotary positions are not computed here";

/// rope_parameters, or what older files call rope_scaling.
void read_rope_object(const nlohmann::ordered_json& json, const char* fraction_key, HfRope& rope) {
  OfficialParams params(json);
  for (const char* key : {"rope_type", "type"}) {
    const std::string type = params.text_or(key, "default");
    params.require(type == "default", key, std::string("\"default\": ") + kScaled);
  }
  rope.base = params.positive_or("rope_theta", rope.base);
  rope.fraction = params.positive_or("partial_rotary_factor", rope.fraction);
  if (!fraction_key && rope.fraction != 1)
    params.require(false, "partial_rotary_factor", "1: heads are rotated as a whole");
  for (const auto& key : params.not_asked_for())
    throw std::runtime_error(key + " has no counterpart: " + kScaled);
}

}  // namespace

Tensor part_of(const FormTensor& tensor, const Tensor& theirs, size_t i) {
  if (tensor.ours.size() == 1) return theirs;
  const auto heads = theirs.unflatten(0, {tensor.n_heads, 3, -1});  // [heads, 3, K, ...]
  return heads.select(1, static_cast<int64_t>(i)).flatten(0, 1).contiguous();
}

Tensor joined(const FormTensor& tensor, const std::vector<Tensor>& ours) {
  if (tensor.ours.size() == 1) return ours.front();
  std::vector<Tensor> heads;
  for (const auto& part : ours) heads.push_back(part.unflatten(0, {tensor.n_heads, -1}));
  return torch::stack(heads, 1).flatten(0, 2);  // [heads, 3, K, ...] -> [heads * 3 * K, ...]
}

std::vector<FormTensor> named_tensors(const Choice& model,
                                      std::string (*name_of)(const std::string& ours)) {
  std::vector<FormTensor> tensors;
  for (const auto& info : parameters_info(*model_factory().build(model)))
    tensors.push_back({name_of(info.name), info.global_shape, {info.name}});
  return tensors;
}

HfRope read_hf_rope(OfficialParams& config, const char* base_key, const char* fraction_key,
                    double fraction) {
  HfRope rope{.fraction = fraction};
  rope.base = config.positive_or(base_key, rope.base);
  if (fraction_key) rope.fraction = config.positive_or(fraction_key, rope.fraction);
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    const auto* object = config.object(key);
    if (!object) continue;
    try {
      read_rope_object(*object, fraction_key, rope);
    } catch (const std::runtime_error& error) {
      throw std::runtime_error(std::string(key) + "." + error.what());
    }
  }
  if (rope.fraction > 1 && fraction_key)
    throw std::runtime_error("the rotated part of a head is above 1");
  return rope;
}

int64_t read_layers(OfficialParams& config, const char* key) {
  const int64_t n = config.integer(key);
  config.require(n <= kMostLayers, key, "at most " + std::to_string(kMostLayers));
  return n;
}

void require_form(bool holds, const std::string& what, const std::string& form,
                  const std::string& expected) {
  if (!holds) throw bad_usage(what + " cannot be written as " + form + ", which has " + expected);
}

}  // namespace tandem
