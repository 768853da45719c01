#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace tandem {

/// One line a record of `tandem bench inference`.
std::string inference_table(const std::vector<nlohmann::ordered_json>& records);
/// The same where only decoding was timed: --protocol decode.
std::string decode_table(const std::vector<nlohmann::ordered_json>& records);

/// For each record of another model than `reference` the ratios to the reference at the same length
/// and batch as asked (the largest of one is compared with the largest of the other): how many times
/// the state, prefill time and decode time of a row it takes, and how many times its throughput the
/// model reaches. A YOCO against a Transformer at a length of the paper's profile has the paper's
/// ratios beside its own. Empty where there is nothing to compare.
std::string comparison_table(const std::vector<nlohmann::ordered_json>& records,
                             const std::string& reference);

/// What a generated token and a token of context cost `reference` over what they cost each other
/// model, computed from the models, and the time of decoding at batch 1; beside them what is
/// expected of a model and a vanilla one that the Block Transformer's paper compares. Empty where
/// there is nothing to compare.
std::string cost_table(const std::vector<nlohmann::ordered_json>& records,
                       const std::string& reference);

}  // namespace tandem
