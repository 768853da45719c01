#pragma once
#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "data/documents.h"
#include "data/tokenizer.h"

namespace tandem {

/// Text files into token files, on all cores. The result is the same, byte for byte, for any number of threads and however often the work was killed on the way.
struct TokenizeJob {
  std::string input = {};  // a file or a folder
  DocumentOptions documents = {};
  std::string output = {};             // prefix
  std::string validation_output = {};  // prefix of held-out documents; empty = none
  double validation_fraction = 0.05;
  uint64_t seed = 0;                          // decides which documents are held out
  std::optional<int32_t> bos = {}, eos = {};  // put before and behind each document
  Specials specials = Specials::kAsText;
  double max_bad_lines = 0.01;  // share of JSON lines
  int64_t threads = 1;
  int64_t block_bytes = int64_t{1} << 20;    // text that a thread takes at a time
  int64_t commit_bytes = int64_t{64} << 20;  // text between two places where a killed job can go on
};

/// What is shown while it works. `packed` bytes count files as they lie on disk.
struct TokenizeProgress {
  int64_t packed_bytes = 0, packed_total = 0, documents = 0, tokens = 0;
};

/// Does the job: PREFIX.bin, .idx and .manifest.json of each output appear when all is done. Between, PREFIX.journal.json (that of the validation output only says whose the partial files are) names the place up to which the partial files are whole; a job whose settings,
/// tokenizer, files, their sizes and times of change are the same (threads, commit_bytes and max_bad_lines may differ) goes on from there, any other begins anew and says so through log_line.
/// `progress` is called on this thread, at the beginning, at the end and about every 100 ms. `stop` is asked behind each block and about every 100 ms between: when it says true, the partial files and journals are left for the next call and nothing is
/// returned, once each thread is done with its document, however large.
/// Returns the manifest of `output`:
///   {"format": "tandem tokens", "version": 1, "tokenizer": {"name", "sha256", "vocab_size"}, "bos": id or null, "eos": id or null, "special_text": "text" | "ids",
///    "part": "train" | "validation" | "all", "validation_fraction", "seed", "documents", "tokens", "empty_documents", "bin_crc32c", "idx_crc32c",
///    "input": {"path", "split", "json_keys", "documents", "bytes", "lines", "bad_lines", "first_errors", "repaired", "files": [{"path", "bytes", "sha256"}, ...]}}
/// The validation output's has the same keys. Throws bad_file for too many bad lines and where there are no documents, bad_usage where an output would be empty, is written by another process, lies in the input folder, has
/// PREFIX.weights or both are the same, cannot_write.
/// After an error that comes later than the first commit, the partial files and journal are left too.
std::optional<nlohmann::ordered_json> tokenize(const Tokenizer& tokenizer, const TokenizeJob& job, const std::function<void(const TokenizeProgress&)>& progress = {},
                                               const std::function<bool()>& stop = {});

/// PREFIX.manifest.json; nothing where there is none. Throws bad_file for a damaged one.
std::optional<nlohmann::ordered_json> read_token_manifest(const std::string& prefix);

}  // namespace tandem
