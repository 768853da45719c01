#pragma once
#include <functional>
#include <memory>
#include <span>

#include "core/config.h"
#include "nn/decoder_stack.h"

namespace tandem {

/// How a model that is made of stacks comes by them without knowing each kind: cli/build_model fills this in.
struct StackFactory {
  std::span<const Option> options;  // the table behind `stack: <name>`
  /// The stack on the meta device.
  std::function<std::shared_ptr<DecoderStack>(const Choice& stack)> build;

  Choice choice() const { Choice c; c.options = options; c.key = "stack"; return c; }
};

}  // namespace tandem
