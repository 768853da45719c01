#include "data/documents.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "core/error.h"
#include "core/file.h"
#include "core/json_lines.h"
#include "core/log.h"
#include "data/json_text.h"
#include "data/unpacked_file.h"
#include "data/utf8.h"

namespace tandem {
namespace {

constexpr int kMaxDepth = 64;  // of folders; a loop of links ends here
constexpr size_t kMostErrors = 5;
constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

bool is_blank(std::string_view line) {
  return line.find_first_not_of(" \t\r\n\v\f") == std::string_view::npos;
}

/// Cuts the next line, with its newline, off the front of `text`.
std::string_view cut_line(std::string_view& text) {
  const size_t newline = text.find('\n');
  const std::string_view line = text.substr(0, newline == text.npos ? newline : newline + 1);
  text.remove_prefix(line.size());
  return line;
}

/// Throws bad_file for what would be garbage as text.
void check_kind(const std::string& path) {
  const std::string name = unpacked_name(path);
  for (const char* ending : {".json", ".ndjson"}) {
    if (has_ending(name, ending)) {
      throw bad_file(path, std::string("a ") + ending +
                               " file, expected text or JSON lines; rename it to .jsonl if each "
                               "line is a JSON object");
    }
  }
  for (const char* ending : {".bz2", ".xz", ".zip", ".parquet", ".tar", ".arrow", ".npy"}) {
    if (has_ending(name, ending)) {
      throw bad_file(path, std::string("a ") + ending +
                               " file, expected text or JSON lines (.jsonl), plain, .gz or .zst");
    }
  }
}

void add_files(const std::string& path, int depth, std::vector<std::string>& files) {
  if (!is_directory(path)) {
    check_kind(path);
    files.push_back(path);
    return;
  }
  if (depth == kMaxDepth) throw bad_file(path, "folders nested more than 64 deep");
  for (const auto& name : list_directory(path)) {
    if (!name.starts_with('.')) add_files(join_path(path, name), depth + 1, files);
  }
}

/// Hands on the documents of one block and counts them.
class Cutter {
 public:
  Cutter(const TextBlock& block, const DocumentOptions& options,
         const std::function<void(std::string_view)>& each)
      : block_(block), options_(options), each_(each) {
    counts.files = block.sha256.has_value();
  }

  DocumentCounts counts;

  void json_lines() {
    JsonText text(options_.json_keys);
    std::string_view rest = block_.bytes;
    auto too_long = block_.too_long.begin();
    for (int64_t number = block_.first_line;; ++number) {
      if (too_long != block_.too_long.end() && *too_long == number) {
        ++too_long;
        ++counts.lines;
        bad_line(number, "longer than " + std::to_string(options_.longest_line) + " bytes");
        continue;
      }
      if (rest.empty()) return;
      const std::string_view line = cut_line(rest);
      if (is_blank(line)) continue;
      ++counts.lines;
      std::optional<std::string_view> found;
      try {
        found = text.of(valid(line));
      } catch (const std::runtime_error& error) {
        bad_line(number, error.what());
      }
      if (found) give(*found);
    }
  }

  void whole_file() { give(valid(block_.bytes)); }

  void paragraphs() {
    std::string_view rest = block_.bytes;
    const char* begin = rest.data();
    const auto end_at = [&](const char* end) {
      if (end > begin) give(valid({begin, static_cast<size_t>(end - begin)}));
    };
    while (!rest.empty()) {
      const std::string_view line = cut_line(rest);
      if (!is_blank(line)) continue;
      end_at(line.data());
      begin = rest.data();
    }
    end_at(rest.data());
  }

 private:
  void bad_line(int64_t number, const std::string& rule) {
    ++counts.bad_lines;
    if (counts.first_errors.size() < kMostErrors) {
      counts.first_errors.push_back(block_.path + ":" + std::to_string(number) + ": " + rule);
    }
  }

  /// `text` itself when it is valid UTF-8, else a repaired copy, valid until the next call.
  std::string_view valid(std::string_view text) {
    if (valid_utf8_prefix(text) == text.size()) return text;
    ++counts.repaired;
    return repaired_ = valid_utf8(text);
  }

  void give(std::string_view text) {
    ++counts.documents;
    counts.bytes += static_cast<int64_t>(text.size());
    each_(text);
  }

  const TextBlock& block_;
  const DocumentOptions& options_;
  const std::function<void(std::string_view)>& each_;
  std::string repaired_;
};

}  // namespace

DocumentCounts& DocumentCounts::operator+=(const DocumentCounts& later) {
  files += later.files;
  documents += later.documents;
  bytes += later.bytes;
  lines += later.lines;
  bad_lines += later.bad_lines;
  repaired += later.repaired;
  for (const auto& error : later.first_errors) {
    if (first_errors.size() < kMostErrors) first_errors.push_back(error);
  }
  return *this;
}

std::vector<std::string> text_files(const std::string& path) {
  if (!exists(path)) File::open_read(path);  // says why not
  std::vector<std::string> files;
  add_files(path, 0, files);
  if (files.empty()) throw bad_file(path, "a folder without files");
  return files;
}

class BlockReader::Impl {
 public:
  Impl(std::vector<std::string> files, const DocumentOptions& options, size_t block_bytes)
      : files_(std::move(files)),
        options_(options),
        block_bytes_(std::max<size_t>(block_bytes, 1)) {}

  void skip_to(int64_t file) {
    if (unpacked_ || file < 0 || static_cast<size_t>(file) > files_.size()) {
      throw std::logic_error("BlockReader::skip_to(" + std::to_string(file) + ") of " +
                             std::to_string(files_.size()) + " files, or behind next()");
    }
    file_ = static_cast<size_t>(file);
  }

  bool next(TextBlock& block) {
    if (!unpacked_) {
      if (file_ == files_.size()) return false;
      unpacked_.emplace(files_[file_]);
      rest_ = {};
      line_ = 1;
      const bool binary = !is_json(files_[file_]) && fill() && rest_.find('\0') != rest_.npos;
      if (binary) throw bad_file(files_[file_], "binary, expected text in UTF-8");
    }
    block = {.path = files_[file_],
             .first_line = line_,
             .json = is_json(files_[file_]),
             .file = static_cast<int64_t>(file_)};
    size_t taken = 0, document = 0;  // bytes since the block began, and since the last border
    while (fill() && (taken < block_bytes_ || document > 0)) {
      const size_t line_begin = block.bytes.size();
      const size_t length = take_line(block, document);
      taken += length;
      ++line_;
      const bool border =
          block.json || (options_.split == SplitText::kBlankLine &&
                         is_blank(std::string_view(block.bytes).substr(line_begin)));
      document = border ? 0 : document + length;
    }
    block.packed_bytes = unpacked_->packed_bytes_read();
    if (!fill()) {
      block.sha256 = unpacked_->sha256();
      unpacked_.reset();
      ++file_;
    }
    return true;
  }

 private:
  static bool is_json(const std::string& path) { return has_ending(unpacked_name(path), ".jsonl"); }

  /// False at the file's end.
  bool fill() {
    if (rest_.empty()) rest_ = unpacked_->next();
    return !rest_.empty();
  }

  /// Moves the next line into the block, unless it is too long. Returns its length.
  size_t take_line(TextBlock& block, size_t document) {
    const size_t begin = block.bytes.size();
    size_t length = 0;
    for (bool ended = false; !ended && fill();) {
      const std::string_view piece = cut_line(rest_);
      ended = piece.ends_with('\n');
      length += piece.size();
      if (!block.json && document + length > options_.largest_document) {
        throw bad_file(block.path, "a document of more than " +
                                       human_bytes(static_cast<double>(options_.largest_document)) +
                                       (options_.split == SplitText::kFile
                                            ? "; --split blank-line cuts the file into documents"
                                            : "; split it with blank lines"));
      }
      if (block.json && length > options_.longest_line) {
        block.bytes.resize(begin);
      } else {
        block.bytes += piece;
      }
    }
    if (block.json && length > options_.longest_line) block.too_long.push_back(line_);
    if (line_ == 1 && block.bytes.starts_with(kByteOrderMark)) {
      block.bytes.erase(0, kByteOrderMark.size());
    }
    return length;
  }

  std::vector<std::string> files_;
  DocumentOptions options_;
  size_t block_bytes_;
  size_t file_ = 0;                       // the one that is read, or comes next
  std::optional<UnpackedFile> unpacked_;  // nothing between two files
  std::string_view rest_;                 // of the last piece
  int64_t line_ = 1;                      // number of the next line
};

BlockReader::BlockReader(std::vector<std::string> files, const DocumentOptions& options,
                         size_t block_bytes)
    : impl_(std::make_unique<Impl>(std::move(files), options, block_bytes)) {}
BlockReader::~BlockReader() = default;
bool BlockReader::next(TextBlock& block) { return impl_->next(block); }
void BlockReader::skip_to(int64_t file) { impl_->skip_to(file); }

DocumentCounts for_each_document(const TextBlock& block, const DocumentOptions& options,
                                 const std::function<void(std::string_view)>& each) {
  Cutter cutter(block, options, each);
  if (block.json) {
    cutter.json_lines();
  } else if (options.split == SplitText::kFile) {
    cutter.whole_file();
  } else {
    cutter.paragraphs();
  }
  return std::move(cutter.counts);
}

DocumentCounts for_each_document(const std::string& path, const DocumentOptions& options,
                                 const std::function<void(std::string_view)>& each) {
  BlockReader reader(text_files(path), options);
  DocumentCounts counts;
  for (TextBlock block; reader.next(block);) counts += for_each_document(block, options, each);
  return counts;
}

void check_bad_lines(const std::string& path, const DocumentCounts& counts, double share) {
  if (counts.bad_lines == 0) return;
  if (static_cast<double>(counts.bad_lines) <= share * static_cast<double>(counts.lines)) return;
  throw bad_file(path, with_commas(counts.bad_lines) + " of " + with_commas(counts.lines) +
                           " lines are bad, " +
                           (share > 0 ? "more than the share of " + json_number(share) + " allowed"
                                      : "and none is allowed") +
                           "; the first: " + counts.first_errors.front());
}

void check_bad_lines_so_far(const std::string& path, const DocumentCounts& counts, double share) {
  constexpr int64_t kFewestLines = 100;
  if (share == 0 || counts.lines >= kFewestLines) check_bad_lines(path, counts, share);
}

}  // namespace tandem
