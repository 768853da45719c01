#pragma once
#include <string>

#include "core/config_node.h"
#include "nn/model_factory.h"
#include "nn/stack_factory.h"

namespace tandem {

/// The families by name: the only place that knows them all.
ModelFactory model_factory();
/// The stacks by name that a Block Transformer's block decoder may be.
StackFactory stack_factory();

/// The model of a config; its other sections are not looked at. Throws bad_file naming `path` where
/// there is no model section.
Choice read_model_section(const ConfigNode& config, const std::string& path);
/// What read_model_section() reads back as `model`, without its key.
ConfigNode write_model_section(const Choice& model);

}  // namespace tandem
