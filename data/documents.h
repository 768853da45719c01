#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tandem {

/// How text files are cut into documents: a whole file, or at blank lines.
enum class SplitText { kFile, kBlankLine };

/// How documents are read.
struct DocumentOptions {
  std::vector<std::string> json_keys = {"text"};  // of the text in JSON lines; the first that an object has
  SplitText split = SplitText::kFile;
  size_t longest_line = size_t{1} << 28;      // bytes of a JSON line, its newline included; a longer one is a bad line
  size_t largest_document = size_t{1} << 30;  // bytes of a document in text files, with a blank line behind it; a larger one is bad_file
};

/// What reading documents met on the way; bad lines are counted and reported, never dropped in silence.
struct DocumentCounts {
  int64_t files = 0, documents = 0, bytes = 0;  // bytes of text
  int64_t lines = 0, bad_lines = 0;             // of JSON lines that are not blank
  int64_t repaired = 0;                         // documents (or JSON lines) in which invalid UTF-8 was replaced
  std::vector<std::string> first_errors = {};   // at most 5, "file:line: rule"
  DocumentCounts& operator+=(const DocumentCounts& later);
};

/// The files below `path` in sorted order, which is the order of documents. Folders are walked, hidden entries left out. Throws bad_file for a missing path, a folder without files, and a file whose
/// name says that it is neither text nor JSON lines: .json, .parquet, .zip.
std::vector<std::string> text_files(const std::string& path);

/// A piece of one file that is cut into documents without a look at the rest: whole lines of JSON, whole paragraphs, or a whole file. So one thread reads and many take apart.
struct TextBlock {
  std::string path;
  int64_t first_line = 1;
  bool json = false;
  std::string bytes = {};       // unpacked, as they were read
  int64_t file = 0;             // number of the file
  uint64_t packed_bytes = 0;    // of this file read so far, as it lies on disk
  std::optional<std::string> sha256 = {};  // of the whole file, with its last block; a file without text has one empty block
  std::vector<int64_t> too_long = {};      // numbers of lines beyond the limit, left out of `bytes`
};

/// Reads files block by block: .jsonl (.jsonl.gz, .jsonl.zst) as JSON lines, all others (and .gz, .zst) as text. A blank line ends a paragraph, which keeps its own newlines, the last one included.
/// A byte order mark is left out. Throws bad_file for damaged files, too large documents and text that begins as no text does, with NUL bytes.
class BlockReader {
 public:
  /// `block_bytes`: blocks end at the first border behind so many.
  BlockReader(std::vector<std::string> files, const DocumentOptions& options, size_t block_bytes = size_t{1} << 20);
  ~BlockReader();
  /// False at the end.
  bool next(TextBlock& block);
  /// Goes on with the beginning of file number `file`: only before the first next().
  void skip_to(int64_t file);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

/// Calls `each` with the documents of a block in order: valid UTF-8, what was not replaced by U+FFFD.
DocumentCounts for_each_document(const TextBlock& block, const DocumentOptions& options, const std::function<void(std::string_view)>& each);
/// The same for all files below `path`.
DocumentCounts for_each_document(const std::string& path, const DocumentOptions& options, const std::function<void(std::string_view)>& each);

/// Throws bad_file naming `path` and the first bad line when more than `share` of all its lines were bad.
void check_bad_lines(const std::string& path, const DocumentCounts& counts, double share);
/// The same while more is to come: of fewer than 100 lines a share says little, so only share = 0 judges them.
void check_bad_lines_so_far(const std::string& path, const DocumentCounts& counts, double share);

}  // namespace tandem
