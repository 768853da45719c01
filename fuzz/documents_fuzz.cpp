// Any bytes as a .jsonl and as a .txt file: documents of valid UTF-8, or refused with a UserError.
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "core/error.h"
#include "data/documents.h"
#include "data/utf8.h"

namespace {

/// A folder of this process, removed at its end.
struct Folder {
  std::filesystem::path path = std::filesystem::temp_directory_path() / ("documents_fuzz." + std::to_string(getpid()));
  Folder() { std::filesystem::create_directories(path); }
  ~Folder() { std::filesystem::remove_all(path); }
};

void read(const std::string& path, tandem::SplitText split) {
  using namespace tandem;
  try {
    const auto counts = for_each_document(path, "text", split, [](std::string_view text) {
      bool changed = false;
      valid_utf8(text, &changed);
      if (changed) std::abort();
    });
    if (counts.files != 1 || counts.documents < 0 || counts.first_errors.size() > 5) std::abort();
  } catch (const UserError& error) {
    if (error.exit_code() != kExitBadFile) std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const Folder folder;
  for (const char* name : {"a.jsonl", "a.txt"}) {
    const std::string path = folder.path / name;
    std::ofstream(path, std::ios::binary).write(reinterpret_cast<const char*>(data), static_cast<std::streamsize>(size));
    read(path, tandem::SplitText::kFile);
    read(path, tandem::SplitText::kBlankLine);
  }
  return 0;
}
