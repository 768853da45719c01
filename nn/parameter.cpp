#include "nn/parameter.h"

#include <ATen/Parallel.h>
#include <torch/utils.h>

#include <cmath>
#include <numbers>
#include <unordered_map>
#include <utility>

#include "comm/communicator.h"
#include "core/error.h"
#include "nn/tensor_parallel.h"

namespace tandem {
namespace {

constexpr int64_t kBlocksPerTask = 4096;

int split_dim_of(Split split) {
  switch (split) {
    case Split::kRows:
      return 0;
    case Split::kColumns:
      return 1;
    case Split::kNone:
      break;
  }
  return -1;
}

// Calls write(block number, its 128 bits) for all blocks, on several threads: values depend on the
// block number only.
template <typename Write>
void for_each_block(int64_t n_blocks, const RandomStream& stream, const Write& write) {
  at::parallel_for(0, n_blocks, kBlocksPerTask, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) write(i, stream.block(static_cast<uint64_t>(i)));
  });
}

// Elements 2i and 2i + 1 are the two normals of block i (Box-Muller).
void fill_normal(float* out, int64_t n, double std, const RandomStream& stream) {
  for_each_block((n + 1) / 2, stream, [&](int64_t i, const std::array<uint32_t, 4>& words) {
    const auto join = [](uint32_t low, uint32_t high) { return uint64_t{high} << 32 | low; };
    // (0, 1], so that the logarithm is finite
    const double u = static_cast<double>((join(words[0], words[1]) >> 11) + 1) * 0x1p-53;
    const double turn = static_cast<double>(join(words[2], words[3]) >> 11) * 0x1p-53;
    const double radius = std * std::sqrt(-2 * std::log(u)), angle = 2 * std::numbers::pi * turn;
    out[2 * i] = static_cast<float>(radius * std::cos(angle));
    if (2 * i + 1 < n) out[2 * i + 1] = static_cast<float>(radius * std::sin(angle));
  });
}

// Elements 4i .. 4i + 3 are the four words of block i, each at the middle of its 2^-32.
void fill_uniform(float* out, int64_t n, double bound, const RandomStream& stream) {
  for_each_block((n + 3) / 4, stream, [&](int64_t i, const std::array<uint32_t, 4>& words) {
    for (int64_t j = 0; j < 4 && 4 * i + j < n; ++j) {
      const double u = (static_cast<double>(words[static_cast<size_t>(j)]) + 0.5) * 0x1p-32;
      out[4 * i + j] = static_cast<float>(bound * (2 * u - 1));
    }
  });
}

// Whole heads on every rank. Those of keys and values may be fewer than the ranks, each shared by
// as many; what goes back into the model's width may not, as it would be summed once too often.
void check_divides(const ParameterInfo& info, int64_t units, int64_t ranks,
                   const std::string& name) {
  const bool heads = info.split_unit > 1, summed = info.split_dim == 1;
  const bool shared = units < ranks && !summed && (!heads || ranks % units == 0);
  if (shared || (units >= ranks && (!heads || units % ranks == 0))) return;
  throw UserError(kExitUsage,
                  name + ": " + std::to_string(units) + (heads ? " heads" : " channels") +
                      " cannot be divided over parallelism.tensor = " + std::to_string(ranks) +
                      " ranks");
}

// Gives every parameter of `module` the storage that data_of(info) returns.
template <typename DataOf>
void materialise_all(torch::nn::Module& module, const DataOf& data_of) {
  const auto infos = parameters_info(module);
  size_t i = 0;
  for (auto& item : module.named_parameters()) materialise(item.value(), data_of(infos[i++]));
}

}  // namespace

Init init_constant(double value) { return {Init::Kind::kConstant, value}; }
Init init_normal(double std) { return {Init::Kind::kNormal, std}; }
Init init_uniform(double bound) { return {Init::Kind::kUniform, bound}; }
Init init_xavier_uniform(int64_t fan_in, int64_t fan_out, double gain) {
  return init_uniform(gain * std::sqrt(6.0 / static_cast<double>(fan_in + fan_out)));
}
Init init_kaiming_uniform(int64_t fan_in) {
  return init_uniform(1 / std::sqrt(static_cast<double>(fan_in)));
}

int64_t ParameterInfo::numel() const {
  int64_t product = 1;
  for (const int64_t size : global_shape) product *= size;
  return product;
}

std::vector<int64_t> ParameterInfo::local_shape() const {
  std::vector<int64_t> shape = global_shape;
  if (divided()) shape[static_cast<size_t>(split_dim)] = split_end - split_begin;
  return shape;
}

Tensor declare(Module& module, const std::string& name, std::vector<int64_t> shape, Init init,
               Split split, bool decay, int64_t split_unit) {
  ParameterInfo info;
  info.name = name;
  info.global_shape = std::move(shape);
  info.split_dim = split_dim_of(split);
  info.split_unit = split_unit;
  info.decay = decay;
  info.init = init;
  TORCH_CHECK(info.split_dim < static_cast<int>(info.global_shape.size()), "parameter ", name,
              " has ", info.global_shape.size(), " dimensions and cannot be split along dimension ",
              info.split_dim);
  TORCH_CHECK(info.split_dim < 0 ||
                  info.global_shape[static_cast<size_t>(info.split_dim)] % split_unit == 0,
              "parameter ", name, " is ", info.global_shape, ", not whole units of ", split_unit);
  auto parameter = module.register_parameter(
      name, torch::empty(info.global_shape, torch::TensorOptions().device(torch::kMeta)));
  module.declared_.emplace(name, std::move(info));
  return parameter;
}

std::vector<ParameterInfo> parameters_info(const torch::nn::Module& module) {
  std::unordered_map<std::string, const torch::nn::Module*> owners = {{"", &module}};
  for (const auto& item : module.named_modules(/*name_prefix=*/"", /*include_self=*/false)) {
    owners.emplace(item.key(), item.value().get());
  }
  std::vector<ParameterInfo> infos;
  for (const auto& item : module.named_parameters()) {
    const auto& full_name = item.key();
    const auto dot = full_name.rfind('.');
    const auto name = dot == std::string::npos ? full_name : full_name.substr(dot + 1);
    const auto path = dot == std::string::npos ? "" : full_name.substr(0, dot);
    const auto* owner = dynamic_cast<const Module*>(owners.at(path));
    const bool declared = owner != nullptr && owner->declared_.contains(name);
    TORCH_CHECK(declared, "parameter ", full_name, " was not made by declare()");
    infos.push_back(owner->declared_.at(name));
    infos.back().name = full_name;
  }
  return infos;
}

void materialise(Tensor& parameter, const Tensor& data) {
  TORCH_CHECK(data.sizes() == parameter.sizes(), "materialise: data is ", data.sizes(),
              ", the parameter ", parameter.sizes());
  TORCH_CHECK(!data.is_meta() && !data.is_inference(),
              "materialise: data must have storage and be no inference tensor");
  parameter.unsafeGetTensorImpl()->shallow_copy_from(data.getIntrusivePtr());
}

void split_over(torch::nn::Module& module, Communicator& tensor) {
  if (tensor.size() == 1) return;
  for (const auto& item : module.named_modules(/*name_prefix=*/"", /*include_self=*/true)) {
    auto* own = dynamic_cast<Module*>(item.value().get());
    if (!own) continue;
    own->tensor_group_ = &tensor;
    for (auto& parameter : own->named_parameters(/*recurse=*/false)) {
      ParameterInfo& info = own->declared_.at(parameter.key());
      if (info.split_dim < 0) continue;
      const int64_t units =
          info.global_shape[static_cast<size_t>(info.split_dim)] / info.split_unit;
      check_divides(info, units, tensor.size(),
                    (item.key().empty() ? "" : item.key() + ".") + parameter.key());
      if (units < tensor.size()) continue;
      const auto [begin, end] = units_of_rank(units, tensor.rank(), tensor.size());
      info.split_begin = begin * info.split_unit;
      info.split_end = end * info.split_unit;
      TORCH_CHECK(parameter.value().is_meta(), "split_over: ", item.key(), ".", parameter.key(),
                  " has storage already");
      const Tensor part = torch::empty(info.local_shape(), parameter.value().options());
      parameter.value().unsafeGetTensorImpl()->shallow_copy_from(part.getIntrusivePtr());
    }
  }
}

Tensor local_part(const ParameterInfo& info, const Tensor& global) {
  TORCH_CHECK(global.sizes() == c10::IntArrayRef(info.global_shape), "local_part: ", info.name,
              " is ", global.sizes(), ", expected ", info.global_shape);
  return info.divided() ? global.slice(info.split_dim, info.split_begin, info.split_end) : global;
}

Tensor initial_values(const ParameterInfo& info, const RandomStream& stream) {
  auto values = torch::empty(info.global_shape, torch::kFloat32);
  const auto own_stream = stream.fork(info.name);
  auto* out = values.data_ptr<float>();
  switch (info.init.kind) {
    case Init::Kind::kConstant:
      values.fill_(info.init.value);
      break;
    case Init::Kind::kNormal:
      fill_normal(out, info.numel(), info.init.value, own_stream);
      break;
    case Init::Kind::kUniform:
      fill_uniform(out, info.numel(), info.init.value, own_stream);
      break;
  }
  return values;
}

void initialise(torch::nn::Module& module, uint64_t seed, torch::Device device,
                torch::Dtype dtype) {
  const auto stream = RandomStream(seed).fork("init");
  materialise_all(module, [&](const ParameterInfo& info) {
    return local_part(info, initial_values(info, stream)).to(device, dtype).contiguous();
  });
}

void materialise_empty(torch::nn::Module& module, torch::Device device, torch::Dtype dtype) {
  const auto options = torch::TensorOptions().device(device).dtype(dtype);
  materialise_all(
      module, [&](const ParameterInfo& info) { return torch::empty(info.local_shape(), options); });
}

int64_t count_parameters(const torch::nn::Module& module) {
  int64_t sum = 0;
  for (const auto& info : parameters_info(module)) sum += info.numel();
  return sum;
}

}  // namespace tandem
