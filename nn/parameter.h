#pragma once
#include <torch/types.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/random.h"

namespace tandem {

using torch::Tensor;
using Tensors = std::vector<Tensor>;

/// How a parameter starts. Values are drawn by the element's index in the global parameter.
struct Init {
  enum class Kind { kConstant, kNormal, kUniform };
  Kind kind = Kind::kConstant;
  double value = 0;  // the constant, the standard deviation, or the bound of U(-value, value)
};
Init init_constant(double value);
Init init_normal(double std);
Init init_uniform(double bound);
Init init_xavier_uniform(int64_t fan_in, int64_t fan_out, double gain);  ///< bound gain * sqrt(6 / (fan_in + fan_out))
Init init_kaiming_uniform(int64_t fan_in);  ///< with a = sqrt 5: bound 1 / sqrt(fan_in), LibTorch's own default for linear layers

/// Which dimension tensor parallelism cuts; kNone is kept whole on every rank.
enum class Split { kNone, kRows, kColumns };

/// What sharding, checkpoints, weight decay and `config show` know of a parameter.
struct ParameterInfo {
  std::string name;                     // public: the key in checkpoints
  std::vector<int64_t> global_shape;
  int split_dim = -1;                   // -1: whole
  int64_t split_begin = 0, split_end = 0;  // this rank's range of split_dim; 0, 0 when whole
  bool decay = true;                    // weight decay applies (matrices, not norms and biases)
  Init init;
  int64_t numel() const;                // of the global parameter
};

/// The base of every module of tandem. Parameters are made by declare() only, as tensors on the meta device: building a model of any size costs nothing.
class Module : public torch::nn::Module {
 public:
  using torch::nn::Module::Module;

 private:
  friend Tensor declare(Module&, const std::string&, std::vector<int64_t>, Init, Split, bool);
  friend std::vector<ParameterInfo> parameters_info(const torch::nn::Module&);
  std::map<std::string, ParameterInfo> declared_;
};

/// Registers a parameter `name` of `module` on meta and returns it; the module keeps the returned tensor as its member.
Tensor declare(Module& module, const std::string& name, std::vector<int64_t> shape, Init init, Split split = Split::kNone, bool decay = true);

/// Info of every parameter below `module` under its full name, in the order of named_parameters(). Throws c10::Error for a parameter that was not declared.
std::vector<ParameterInfo> parameters_info(const torch::nn::Module& module);

/// Gives a meta parameter storage: it becomes `data` (any device or dtype, a view too), keeping identity and requires_grad.
/// Call before any graph is built on it.
void materialise(Tensor& parameter, const Tensor& data);

/// Initial values of one global parameter, float32 on the CPU: `info.init` drawn from stream.fork(info.name). The same whatever the mesh or dtype.
Tensor initial_values(const ParameterInfo& info, const RandomStream& stream);

/// Materialises every parameter of `module` with initial values drawn from `seed`, cast to `dtype` on `device`.
void initialise(torch::nn::Module& module, uint64_t seed, torch::Device device, torch::Dtype dtype);
/// Materialises every parameter with uninitialised storage, for loading into.
void materialise_empty(torch::nn::Module& module, torch::Device device, torch::Dtype dtype);

int64_t count_parameters(const torch::nn::Module& module);

/// What norms, softmax, gates and losses of `dtype` activations compute in: float32, or float64 for float64.
inline torch::Dtype float_or_wider(torch::Dtype dtype) { return dtype == torch::kFloat64 ? torch::kFloat64 : torch::kFloat32; }

}  // namespace tandem
