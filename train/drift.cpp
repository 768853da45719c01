#include "train/drift.h"

#include <algorithm>
#include <map>
#include <string_view>

#include "core/error.h"
#include "core/log.h"

namespace tandem {
namespace {

struct DriftRule {
  std::string_view keys;  // this key and all below it; [] stands for any index
  Verdict verdict;
};
// The longest that fits decides. Keys that are not here are refused. Paths may change, as contents
// are compared by their hashes.
constexpr DriftRule kTable[] = {
    {"training.steps", Verdict::kAllow},  // a schedule that follows it drifts itself, at
                                          // lr_schedule.steps
    {"training.threads", Verdict::kWarn},
    {"training.micro_batch_size", Verdict::kWarn},
    {"training.recompute", Verdict::kAllow},
    {"data.tokenizer", Verdict::kAllow},
    {"data.train[].path", Verdict::kAllow},
    {"data.validation", Verdict::kAllow},
    {"parallelism", Verdict::kWarn},
    {"parallelism.overlap", Verdict::kAllow},
    {"communication", Verdict::kAllow},
    {"bad_steps", Verdict::kAllow},
    {"checkpoint", Verdict::kAllow},
    {"metrics", Verdict::kAllow},
    {"validation", Verdict::kAllow},
};

/// "data.train[1].path" -> "data.train[].path".
std::string without_indices(const std::string& key) {
  std::string out;
  bool inside = false;
  for (const char c : key) {
    if (c == ']') inside = false;
    if (!inside) out += c;
    if (c == '[') inside = true;
  }
  return out;
}

Verdict verdict_of(const std::string& key) {
  const std::string path = without_indices(key);
  const DriftRule* best = nullptr;
  for (const DriftRule& rule : kTable) {
    const bool fits = path.starts_with(rule.keys) &&
                      (path.size() == rule.keys.size() || path[rule.keys.size()] == '.' ||
                       path[rule.keys.size()] == '[');
    if (fits && (!best || rule.keys.size() > best->keys.size())) best = &rule;
  }
  return best ? best->verdict : Verdict::kRefuse;
}

/// Every scalar below `node` by its path, in written order.
void flatten(const ConfigNode& node, const std::string& path,
             std::vector<std::pair<std::string, std::string>>& out) {
  using Kind = ConfigNode::Kind;
  if (node.kind == Kind::kMap && !node.entries.empty()) {
    for (const auto& [key, value] : node.entries)
      flatten(value, path.empty() ? key : path + "." + key, out);
  } else if (node.kind == Kind::kList && !node.items.empty()) {
    for (size_t i = 0; i < node.items.size(); ++i)
      flatten(node.items[i], path + "[" + std::to_string(i) + "]", out);
  } else {
    out.emplace_back(path, inline_yaml(node));
  }
}

}  // namespace

std::vector<Drift> find_drift(const ConfigNode& old_config, const ConfigNode& new_config) {
  std::vector<std::pair<std::string, std::string>> before, now;
  flatten(old_config, "", before);
  flatten(new_config, "", now);
  const std::map<std::string, std::string> old_values(before.begin(), before.end()),
      new_values(now.begin(), now.end());
  std::vector<Drift> drifts;
  for (const auto& [key, value] : before) {
    const auto found = new_values.find(key);
    if (found == new_values.end()) {
      drifts.push_back({key, value, "absent", verdict_of(key)});
    } else if (found->second != value) {
      drifts.push_back({key, value, found->second, verdict_of(key)});
    }
  }
  for (const auto& [key, value] : now) {
    if (!old_values.contains(key)) drifts.push_back({key, "absent", value, verdict_of(key)});
  }
  return drifts;
}

void judge_drift(const std::string& run_folder, const std::vector<Drift>& drifts) {
  const auto drifted = [&](std::string_view key) {
    return std::find_if(drifts.begin(), drifts.end(),
                        [&](const Drift& drift) { return drift.key == key; });
  };
  const auto change = [](const Drift& drift) {
    return drift.key + " was " + drift.old_value + ", is " + drift.new_value;
  };
  std::string refused;
  for (const Drift& drift : drifts) {
    if (drift.verdict == Verdict::kRefuse) refused += (refused.empty() ? "" : "; ") + change(drift);
  }
  if (refused.empty()) {
    for (const Drift& drift : drifts) {
      if (drift.verdict == Verdict::kAllow)
        log_line("changed since the checkpoint: " + change(drift));
      if (drift.verdict == Verdict::kWarn)
        log_warning(change(drift) +
                    "; further steps differ in their last bits from those of a run that kept it");
    }
    return;
  }

  // lr_schedule.steps comes from training.steps unless it is written.
  const auto steps = drifted("training.steps"), end = drifted("lr_schedule.steps");
  const bool followed = steps != drifts.end() && end != drifts.end() &&
                        steps->old_value == end->old_value && steps->new_value == end->new_value;
  if (followed) {
    refused +=
        "; the schedule ends with training.steps, so other steps would have had other learning "
        "rates: to keep it write lr_schedule.steps=" +
        end->old_value;
  }
  throw UserError(kExitUsage, run_folder + ": cannot be resumed with another config: " + refused +
                                  "; go back, or start another run with --out");
}

}  // namespace tandem
