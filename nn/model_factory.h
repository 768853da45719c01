#pragma once
#include <functional>
#include <memory>
#include <span>

#include "core/config.h"
#include "nn/language_model.h"

namespace tandem {

class Checkpoint;

/// How train and eval come by models without knowing a family: cli/build_model fills this in.
struct ModelFactory {
  std::span<const Option> options;  // the table behind `model: {family: ...}`
  /// The model on the meta device.
  std::function<std::shared_ptr<LanguageModel>(const Choice& model)> build;
  /// Fills an absent vocab_size from the tokenizer; throws UserError when the config's is smaller than the tokenizer's.
  std::function<void(Choice& model, int64_t tokenizer_vocab_size)> set_vocab_size;
  /// Fills `into`, which was built from `model` and initialised at random in float32, with what uptraining begins with, out of a checkpoint of another family
  /// (Block Transformer, sec. 3.5). Throws UserError where the two do not fit each other.
  std::function<void(const Choice& model, LanguageModel& into, const Checkpoint& from)> uptrain;

  Choice choice() const { Choice c; c.options = options; c.key = "family"; return c; }
};

}  // namespace tandem
