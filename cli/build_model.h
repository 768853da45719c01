#pragma once
#include "nn/model_factory.h"

namespace tandem {

/// The families by name: the only place that knows them all.
ModelFactory model_factory();

}  // namespace tandem
