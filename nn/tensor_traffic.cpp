#include "nn/tensor_traffic.h"

#include <algorithm>
#include <map>

#include "nn/linear.h"
#include "nn/norm.h"

namespace tandem {
namespace {

/// What the matrices of one module read and whether they give a sum.
struct Region {
  double read = 0;  // tokens x channels
  bool summed = false;
};

std::string parent_of(const std::string& name) {
  const auto dot = name.rfind('.');
  return dot == std::string::npos ? "" : name.substr(0, dot);
}

std::string last_of(const std::string& name) { return name.substr(name.rfind('.') + 1); }

}  // namespace

TensorTraffic tensor_traffic(const torch::nn::Module& model, int64_t ranks,
                             const TokensThrough& tokens, double n_scored, int64_t element_size) {
  double forward = 0, backward = 0, again = 0, d_head = 0;  // in elements
  std::map<std::string, Region> regions;
  for (const auto& item : model.named_modules(/*name_prefix=*/"", /*include_self=*/false)) {
    const std::string& name = item.key();
    const auto infos = [&] { return parameters_info(*item.value()); };
    if (dynamic_cast<const EmbeddingImpl*>(item.value().get()) != nullptr) {
      const ParameterInfo info = infos()[0];
      const double dim = static_cast<double>(info.global_shape[1]);
      if (info.divided()) forward += tokens(name) * dim;
      if (info.divided()) d_head = dim;  // where it is tied: of two tables the last is the head
      if (last_of(name) == "position_bias") backward += tokens(name) * dim;
    }
    if (dynamic_cast<const HeadNormImpl*>(item.value().get()) != nullptr)
      backward += static_cast<double>(infos()[0].numel());
    if (dynamic_cast<const LinearImpl*>(item.value().get()) == nullptr) continue;
    const auto parameters = infos();
    const ParameterInfo& weight = parameters[0];
    const double out = static_cast<double>(weight.global_shape[0]),
                 in = static_cast<double>(weight.global_shape[1]);
    Region& region = regions[parent_of(name)];
    // What a token decoder's layers attend to beside their input, once for all of them.
    if (name.ends_with("layers.0.cross_k_proj")) backward += tokens(name) * in;
    if (last_of(name) == "head") {
      if (weight.divided()) d_head = in;
    } else if (weight.split_dim == 1) {
      forward += tokens(name) * out;
      backward += tokens(name) * out;  // of what the rows of this region read
      again += tokens(name) * out;
      region.summed = true;
    } else if (weight.split_dim == 0) {
      region.read = std::max(region.read, tokens(name) * in);
      if (weight.divided()) continue;
      for (const auto& parameter : parameters) backward += static_cast<double>(parameter.numel());
    }
  }
  for (const auto& [name, region] : regions) {
    if (!region.summed) backward += region.read;
  }
  const double share = 2 * static_cast<double>(ranks - 1) / static_cast<double>(ranks);
  const double size = static_cast<double>(element_size),
               wide = static_cast<double>(std::max<int64_t>(element_size, sizeof(float)));
  const double loss = d_head > 0 ? n_scored * (d_head * size + 3 * wide) : 0;
  return {share * (forward * size + loss), share * backward * size, share * again * size};
}

}  // namespace tandem
