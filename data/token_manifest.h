#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "data/token_file.h"
#include "data/token_file_writer.h"
#include "data/tokenize.h"
#include "data/tokenize_journal.h"

namespace tandem {

/// What data/tokenize.h promises of PREFIX.manifest.json, for a writer whose finish() was called and publish() was not. `part`: "train", "validation" or "all".
nlohmann::ordered_json token_manifest(const Tokenizer& tokenizer, const TokenizeJob& job, const std::vector<SourceFile>& files, const TokenizePlace& place, const TokenFileWriter& writer,
                                      const std::string& part);

/// Throws bad_usage, with `advice` at its end, where the manifest of `file` says that it was made with another tokenizer than `tokenizer`, which is `whose`: "data.tokenizer".
/// A file without manifest says nothing. Throws bad_file for a damaged one.
void check_made_by(const TokenFile& file, const Tokenizer& tokenizer, const std::string& whose, const std::string& advice);

}  // namespace tandem
