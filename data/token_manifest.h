#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "data/token_file_writer.h"
#include "data/tokenize.h"
#include "data/tokenize_journal.h"

namespace tandem {

/// What data/tokenize.h promises of PREFIX.manifest.json, for a writer whose finish() was called and publish() was not. `part`: "train", "validation" or "all".
nlohmann::ordered_json token_manifest(const Tokenizer& tokenizer, const TokenizeJob& job, const std::vector<SourceFile>& files, const TokenizePlace& place, const TokenFileWriter& writer,
                                      const std::string& part);

}  // namespace tandem
