#pragma once
#include <torch/types.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "nn/parameter.h"

namespace tandem {

class Communicator;
class LayerRunner;

/// What make_state needs to know. `extend` builds its contexts from the last two.
struct StateShape {
  int64_t batch = 1;
  int64_t capacity = 0;  // tokens a row may reach; eager mode doubles it when it is passed
  torch::Device device = torch::kCPU;
  torch::Dtype dtype = torch::kFloat32;  // of keys and values; kInt8: nn/cache_rows.h
  Communicator* sequence = nullptr;
  LayerRunner* runner = nullptr;
};

/// What sequences carry from one call to the next. The caller owns it.
template <typename Self>
struct State {
  virtual ~State() = default;
  /// The rows named by `rows` [n] int64, repeated as given, as a state of their own. A clone is a select.
  virtual std::unique_ptr<Self> select(const Tensor& rows) const = 0;
  /// Everything held, by name, as views of what is valid so far where that is a slice.
  virtual std::vector<std::pair<std::string, Tensor>> tensors() const = 0;
  /// Bytes over tensors().
  int64_t bytes() const {
    int64_t sum = 0;
    for (const auto& [name, tensor] : tensors()) sum += tensor.numel() * tensor.element_size();
    return sum;
  }
};

/// Of one token mixer.
struct MixerState : State<MixerState> {};
/// Of a stack of layers; `lengths` [B] int64 on the device: positions held. A stack adds a call's lengths after its layers ran.
struct StackState : State<StackState> {
  Tensor lengths;
};
/// Of a whole model; `next_logits` [B, V] float32 is left by extend(kLast) and generate_block.
struct ModelState : State<ModelState> {
  Tensor lengths, next_logits;
};

/// positions [B, T] int64 that continue `lengths` [B]: lengths + 0 .. T-1.
Tensor positions_after(const Tensor& lengths, int64_t n_tokens);

}  // namespace tandem
