#pragma once
#include <string>
#include <vector>

#include "core/config_node.h"

namespace tandem {

/// What becomes of a resumed run whose config changed at a key.
enum class Verdict {
  kAllow,   // the steps that are done stay what they would have been
  kWarn,    // the same mathematics in another order: numbers change in their last bits
  kRefuse,  // the run would no longer be the one that was started
};

/// A key whose value is another than the checkpoint's.
struct Drift {
  std::string key, old_value, new_value;  // values as one line of YAML; "absent"
  Verdict verdict = Verdict::kRefuse;
};

/// Every difference between two resolved configs, judged by the table at the top of drift.cpp.
std::vector<Drift> find_drift(const ConfigNode& old_config, const ConfigNode& new_config);

/// Logs what is allowed and what to be warned of. Throws UserError (exit code 2) naming each
/// refused key with both values.
void judge_drift(const std::string& run_folder, const std::vector<Drift>& drifts);

}  // namespace tandem
