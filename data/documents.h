#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace tandem {

/// What reading documents met on the way; bad lines are counted and reported, never dropped in silence.
struct DocumentCounts {
  int64_t files = 0, documents = 0, bytes = 0, bad_lines = 0;
  int64_t repaired = 0;  // documents (or JSON lines) in which invalid UTF-8 was replaced
  std::vector<std::string> first_errors;  // at most 5, "file:line: rule"
};

/// How text files are cut into documents: a whole file, or at blank lines.
enum class SplitText { kFile, kBlankLine };

/// Calls `each` with every document below `path`, in sorted file order: .jsonl (and .jsonl.zst) files give the string under `json_key`
/// of each line, all other files (and .zst ones) are UTF-8 text. Folders are walked, hidden entries left out. A missing path is
/// bad_file; invalid UTF-8 is replaced by U+FFFD. A blank line ends a document, which keeps its own newlines, the last one included.
DocumentCounts for_each_document(const std::string& path, const std::string& json_key, SplitText split,
                                 const std::function<void(std::string_view)>& each);

}  // namespace tandem
