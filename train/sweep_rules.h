#pragma once
#include <functional>
#include <string>
#include <vector>

#include "train/model_size.h"
#include "train/sweep_config.h"

namespace tandem {

/// A key of a training config and the value that a run gives it.
struct Setting {
  std::string key;  // model.self_decoder.mixers[0].n_heads
  ConfigNode value;
  Origin origin;
  std::string word() const;  ///< as `tandem train` takes it: key=value
};

/// What stands under `set`, in order: maps taken apart, so that each is laid over what was there.
std::vector<Setting> settings_of(const ConfigNode& map, const std::string& key = "");
/// Puts one into a config. Mistakes name where it was written.
void apply(ConfigNode& root, const Setting& setting);

/// What the steps rule asks of a model.
struct SizedModel {
  ModelSize size;
  double flops_per_token = 0;  // of training
};

/// The settings that rules make out of `root`, a config with all other settings in it: heads and
/// widths first, `sized` being called with those in place. Throws UserError where a rule finds
/// nothing to do, or what it makes is among `given`.
std::vector<Setting> derive(const SweepRules& rules, const ConfigNode& root,
                            const std::vector<Setting>& given, const Origin& origin,
                            const std::function<SizedModel(const ConfigNode& root)>& sized);

/// The largest d_model that the model section writes; 0 where it writes none.
int64_t width_of(const ConfigNode& root);

}  // namespace tandem
