// Any bytes as JSON lines and as text, plain and as packed files: documents of valid UTF-8 that do
// not depend on how the file is cut into blocks, or refused with a UserError.
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "core/error.h"
#include "data/documents.h"
#include "data/utf8.h"

namespace {

/// A folder of this process, removed at its end; in memory where there is such a place.
struct Folder {
  std::filesystem::path path = std::filesystem::path(std::filesystem::exists("/dev/shm")
                                                         ? "/dev/shm"
                                                         : std::filesystem::temp_directory_path()) /
                               ("documents_fuzz." + std::to_string(getpid()));
  Folder() { std::filesystem::create_directories(path); }
  ~Folder() { std::filesystem::remove_all(path); }
};

struct Seen {
  std::vector<std::string> documents;
  tandem::DocumentCounts counts;
  std::string error;
};

Seen read(const std::string& path, const tandem::DocumentOptions& options, size_t block_bytes) {
  Seen seen;
  try {
    tandem::BlockReader reader({path}, options, block_bytes);
    for (tandem::TextBlock block; reader.next(block);) {
      seen.counts += tandem::for_each_document(block, options, [&](std::string_view text) {
        if (tandem::valid_utf8_prefix(text) != text.size()) std::abort();
        seen.documents.emplace_back(text);
      });
    }
    if (seen.counts.files != 1 || seen.counts.bad_lines > seen.counts.lines) std::abort();
  } catch (const tandem::UserError& error) {
    if (error.exit_code() != tandem::kExitBadFile) std::abort();
    seen.error = error.what();
  }
  return seen;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const Folder folder;
  for (const char* name : {"a.jsonl", "a.txt", "a.jsonl.gz", "a.jsonl.zst"}) {
    const std::string path = folder.path / name;
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(data), static_cast<std::streamsize>(size));
    for (const auto split : {tandem::SplitText::kFile, tandem::SplitText::kBlankLine}) {
      const tandem::DocumentOptions options{.json_keys = {"text", "content"},
                                            .split = split,
                                            .longest_line = 1 << 12,
                                            .largest_document = 1 << 20};
      const Seen whole = read(path, options, size_t{1} << 20),
                 cut = read(path, options, 1 + size % 61);
      if (whole.error != cut.error) std::abort();
      // With an error, documents before the damage may have been given or not.
      const bool good = whole.error.empty();
      if (good && (whole.documents != cut.documents ||
                   whole.counts.first_errors != cut.counts.first_errors))
        std::abort();
      if (good && (whole.counts.lines != cut.counts.lines ||
                   whole.counts.bad_lines != cut.counts.bad_lines ||
                   whole.counts.repaired != cut.counts.repaired))
        std::abort();
      if (std::string_view(name) != "a.txt") break;  // JSON lines have no paragraphs
    }
  }
  return 0;
}
