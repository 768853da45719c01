#pragma once
#include "core/config.h"
#include "nn/checkpoint.h"
#include "nn/language_model.h"

namespace tandem {

/// Fills `into`, built from `model` and initialised at random, with what uptraining begins with (blocktf/uptrain.h), out of a checkpoint of family transformer or
/// gpt_neox. Throws UserError where `model` is no Block Transformer, where the checkpoint is of another family or has learned positions, and where the two do not fit each other.
void uptrain_from_checkpoint(const Choice& model, LanguageModel& into, const Checkpoint& from);

}  // namespace tandem
