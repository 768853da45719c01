#pragma once
#include <torch/csrc/autograd/custom_function.h>

namespace tandem {

class Communicator;

/// A group on its way from the forward to the backward pass of an autograd function.
struct HeldGroup : torch::CustomClassHolder {
  Communicator* group;
  explicit HeldGroup(Communicator* held) : group(held) {}
};
inline void hold_group(torch::autograd::AutogradContext* ctx, Communicator* group) {
  ctx->saved_data["group"] = c10::IValue::make_capsule(c10::make_intrusive<HeldGroup>(group));
}
inline Communicator* held_group(torch::autograd::AutogradContext* ctx) {
  return c10::static_intrusive_pointer_cast<HeldGroup>(ctx->saved_data["group"].toCapsule())->group;
}

}  // namespace tandem
