#pragma once
#include <torch/types.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/random.h"

namespace tandem {

class Communicator;
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
  int split_dim = -1;                   // the dimension that ranks of the tensor group divide; -1: none, every rank holds it whole
  int64_t split_unit = 1;               // which may be cut at multiples of this only: the channels of a head
  int64_t split_begin = 0, split_end = 0;  // this rank's range of split_dim; 0, 0 until split_over() divided it
  bool decay = true;                    // weight decay applies (matrices, not norms and biases)
  Init init;
  int64_t numel() const;                // of the global parameter
  bool divided() const { return split_end > 0; }  ///< this rank holds a part of it
  std::vector<int64_t> local_shape() const;       ///< of what this rank holds
};

/// The base of every module of tandem. Parameters are made by declare() only, as tensors on the meta device: building a model of any size costs nothing.
class Module : public torch::nn::Module {
 public:
  using torch::nn::Module::Module;

 protected:
  /// The ranks that divide this module's parameters; nullptr: this process holds them whole.
  Communicator* tensor_group() const { return tensor_group_; }
  const ParameterInfo& declared(const std::string& name) const { return declared_.at(name); }

 private:
  friend Tensor declare(Module&, const std::string&, std::vector<int64_t>, Init, Split, bool, int64_t);
  friend std::vector<ParameterInfo> parameters_info(const torch::nn::Module&);
  friend void split_over(torch::nn::Module&, Communicator&);
  std::map<std::string, ParameterInfo> declared_;
  Communicator* tensor_group_ = nullptr;
};

/// Registers a parameter `name` of `module` on meta and returns it; the module keeps the returned tensor as its member. `split_unit`: tensor parallelism cuts at multiples of it.
Tensor declare(Module& module, const std::string& name, std::vector<int64_t> shape, Init init, Split split = Split::kNone, bool decay = true, int64_t split_unit = 1);

/// Divides every parameter below `module`, which is still on meta, over the ranks of `tensor`: rank r of n holds units [r U / n, (r + 1) U / n) of the U along its split dimension.
/// Parameters of fewer units than ranks (key/value heads) stay whole. Every module below knows `tensor` from then on; it outlives the module.
/// Throws UserError (exit code 2) naming the parameter where units of more than one element do not divide evenly. A group of one changes nothing.
void split_over(torch::nn::Module& module, Communicator& tensor);

/// Info of every parameter below `module` under its full name, in the order of named_parameters(). Throws c10::Error for a parameter that was not declared.
std::vector<ParameterInfo> parameters_info(const torch::nn::Module& module);

/// Gives a meta parameter storage: it becomes `data` (any device or dtype, a view too), keeping identity and requires_grad.
/// Call before any graph is built on it.
void materialise(Tensor& parameter, const Tensor& data);

/// The part of a global parameter (or of anything of its shape) that this rank holds, as a view.
Tensor local_part(const ParameterInfo& info, const Tensor& global);

/// Initial values of one global parameter, float32 on the CPU: `info.init` drawn from stream.fork(info.name). The same whatever the mesh or dtype.
Tensor initial_values(const ParameterInfo& info, const RandomStream& stream);

/// Materialises every parameter of `module` with initial values drawn from `seed`, cast to `dtype` on `device`.
void initialise(torch::nn::Module& module, uint64_t seed, torch::Device device, torch::Dtype dtype);
/// Materialises every parameter with uninitialised storage, for loading into.
void materialise_empty(torch::nn::Module& module, torch::Device device, torch::Dtype dtype);

int64_t count_parameters(const torch::nn::Module& module);  ///< of the global model

/// What norms, softmax, gates and losses of `dtype` activations compute in: float32, or float64 for float64.
inline torch::Dtype float_or_wider(torch::Dtype dtype) { return dtype == torch::kFloat64 ? torch::kFloat64 : torch::kFloat32; }

}  // namespace tandem
