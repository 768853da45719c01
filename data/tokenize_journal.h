#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "data/documents.h"
#include "data/token_file_writer.h"
#include "data/tokenize.h"

namespace tandem {

/// How far tokenize() has come, when all before is on disk.
struct TokenizePlace {
  int64_t file = 0, blocks = 0;  // goes on behind so many blocks of that file
  DocumentCounts counts = {};
  struct Source {
    int64_t bytes = 0;  // as it lies on disk
    std::string sha256;
  };
  std::vector<Source> sources = {};  // of the files that were read to their end
  std::vector<TokenFileWriter::Place> outputs = {};
};

/// A file before it is read.
struct SourceFile {
  std::string path;
  int64_t bytes = 0;
  int64_t changed_ns = 0;  // time of change; only compared with itself
};
/// Throws bad_file for what is not a regular file: a job that goes on could not read it a second time.
std::vector<SourceFile> look_at_files(const std::vector<std::string>& paths);

/// What two jobs must have in common for one to go on where the other was stopped. 64 hex digits.
std::string fingerprint(const Tokenizer& tokenizer, const TokenizeJob& job, const std::vector<SourceFile>& files);

/// PATH, a JSON file that holds the place of one job, or only says whose the partial files beside it are.
class TokenizeJournal {
 public:
  TokenizeJournal(std::string path, std::string fingerprint) : path_(std::move(path)), fingerprint_(std::move(fingerprint)) {}
  /// Nothing where there is no journal, or one of another job, or a damaged one; says so through log_line when there is one.
  std::optional<TokenizePlace> read() const;
  void write(const TokenizePlace& place) const;  ///< atomically
  /// Beside the other outputs of a job: that their partial files are its own, without a place.
  void write_claim() const;
  bool claimed() const;  ///< whether this job wrote such a claim, and no other one came after it
  void remove() const;
  const std::string& path() const { return path_; }

 private:
  std::string path_, fingerprint_;
};

}  // namespace tandem
