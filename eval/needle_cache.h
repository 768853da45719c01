#pragma once
#include <optional>
#include <string>
#include <vector>

#include "eval/needle_set.h"

namespace tandem {

/// CACHE/PROTOCOL-TASK-LENGTH-HASH/validation.jsonl
std::string needle_set_path(const NeedleSetConfig& config, const std::string& hash);

/// A line for each sample in RULER's shape: {index, input, outputs, length, length_w_model_temp,
/// answer_prefix, token_position_answer}, where length_w_model_temp is length, as no chat template
/// stands around the prompt, and token_position_answer is one number as in RULER, that of the first
/// output (-1 in a set without needles). Of tandem's own: {token_positions, depth, decoys, set},
/// all outputs' positions and the set's hash. Appears whole or not at all, also where several
/// processes write it at once. Throws cannot_write.
void write_needle_set(const std::string& path, const std::string& hash,
                      const std::vector<NeedleSample>& samples);

/// The set, or nothing where there is no file. Throws bad_file with file and line for a damaged or
/// foreign line, one of another set, and a number of lines other than config.samples.
std::optional<std::vector<NeedleSample>> read_needle_set(const std::string& path,
                                                         const std::string& hash,
                                                         const NeedleSetConfig& config);

}  // namespace tandem
