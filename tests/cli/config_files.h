#pragma once
#include <cstdint>
#include <string>

#include "cli/build_model.h"
#include "nn/parameter.h"
#include "tests/paths.h"
#include "train/train_config.h"

namespace tandem {

// The configs that come with tandem, for the tests of them.

inline const std::string kConfigFolder = std::string(kSourceDir) + "/configs/";
inline std::string path_of(const std::string& name) { return kConfigFolder + name + ".yaml"; }

inline TrainConfig read_node(const ConfigNode& root) {
  TrainConfig config = make_train_config(model_factory());
  read_config(root, config);
  return config;
}
inline TrainConfig read(const std::string& path) { return read_node(parse_yaml_file(path)); }

inline int64_t count(const Choice& model) { return count_parameters(*model_factory().build(model)); }

}  // namespace tandem
