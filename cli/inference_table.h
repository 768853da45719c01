#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace tandem {

/// One line a record of `tandem bench inference`.
std::string inference_table(const std::vector<nlohmann::ordered_json>& records);

/// For each record of another model than `reference` the ratios to the reference at the same batch
/// and length: how many times the state, prefill time and decode time it takes, and how many times
/// its throughput the model reaches. A YOCO against a Transformer at a length of the paper's
/// profile has the paper's ratios beside its own. Empty where there is nothing to compare.
std::string comparison_table(const std::vector<nlohmann::ordered_json>& records,
                             const std::string& reference);

}  // namespace tandem
