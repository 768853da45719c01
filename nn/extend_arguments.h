#pragma once
#include "nn/parameter.h"

namespace tandem {

/// Throws c10::Error unless tokens are [batch, T] and lengths, where given, [batch] from `shortest` to T. Values are looked at on a CPU only: elsewhere that would wait
/// for the device.
void check_extend_arguments(const Tensor& tokens, const Tensor& lengths, int64_t batch, int64_t shortest);

/// Throws c10::Error unless ids are from `least` to vocab_size - 1. On a CPU only: on a GPU the lookup itself fails.
void check_ids(const Tensor& ids, int64_t least, int64_t vocab_size);

}  // namespace tandem
