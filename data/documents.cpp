#include "data/documents.h"

#include <zstd.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <stdexcept>

#include "core/error.h"
#include "core/file.h"
#include "core/json_lines.h"
#include "data/utf8.h"

namespace tandem {
namespace {

constexpr size_t kChunkBytes = size_t{1} << 18;
constexpr size_t kMaxLineBytes = size_t{1} << 28;  // longer lines are bad lines
constexpr size_t kMaxDocumentBytes = size_t{1}
                                     << 30;  // token files count a document's tokens in 31 bits
constexpr int kMaxDepth = 64;                // of folders; a loop of links ends here

bool ends_with(const std::string& name, std::string_view end) {
  return name.size() >= end.size() &&
         std::string_view(name).substr(name.size() - end.size()) == end;
}

/// A file's bytes in pieces, unpacked when its name ends in .zst.
class Chunks {
 public:
  explicit Chunks(const std::string& path) : file_(File::open_read(path)), size_(file_.size()) {
    if (ends_with(path, ".zst")) {
      zstd_.reset(ZSTD_createDStream());
      if (!zstd_) throw std::bad_alloc();
    }
  }

  /// The next piece, valid until the next call; empty at the end.
  std::string_view next() {
    if (!zstd_) return read_packed();
    unpacked_.resize(kChunkBytes);
    ZSTD_outBuffer out{unpacked_.data(), unpacked_.size(), 0};
    while (out.pos == 0) {
      if (in_.pos == in_.size && !output_waits_) {
        const std::string_view packed = read_packed();
        if (packed.empty()) {
          if (inside_frame_)
            throw bad_file(file_.path(), "zstd data ends in the middle of a frame");
          return {};
        }
        in_ = {packed.data(), packed.size(), 0};
      }
      const size_t left = ZSTD_decompressStream(zstd_.get(), &out, &in_);
      if (ZSTD_isError(left)) {
        throw bad_file(file_.path(), std::string("damaged zstd data: ") + ZSTD_getErrorName(left));
      }
      inside_frame_ = left != 0;
      // Within a frame a full buffer may mean that more is ready without new input.
      output_waits_ = inside_frame_ && out.pos == out.size;
    }
    return {unpacked_.data(), out.pos};
  }

 private:
  std::string_view read_packed() {
    packed_.resize(static_cast<size_t>(std::min<uint64_t>(kChunkBytes, size_ - offset_)));
    file_.read_at(offset_, std::as_writable_bytes(std::span(packed_)));
    offset_ += packed_.size();
    return packed_;
  }

  struct FreeStream {
    void operator()(ZSTD_DStream* stream) const { ZSTD_freeDStream(stream); }
  };
  File file_;
  uint64_t size_, offset_ = 0;
  std::string packed_, unpacked_;
  std::unique_ptr<ZSTD_DStream, FreeStream> zstd_;
  ZSTD_inBuffer in_{nullptr, 0, 0};
  bool inside_frame_ = false, output_waits_ = false;
};

/// The lines of a file, each with its newline. A byte order mark at the start is left out.
class Lines {
 public:
  explicit Lines(const std::string& path) : chunks_(path) {}

  /// Gives the next line; false at the end. Of a line longer than kMaxLineBytes only the beginning
  /// is kept.
  bool next(std::string& line, bool& too_long) {
    line.clear();
    too_long = false;
    bool any = false;
    while (true) {
      if (rest_.empty()) rest_ = chunks_.next();
      if (rest_.empty()) break;
      any = true;
      const size_t newline = rest_.find('\n');
      const std::string_view piece = rest_.substr(0, newline == rest_.npos ? newline : newline + 1);
      if (line.size() + piece.size() > kMaxLineBytes) {
        too_long = true;
      } else {
        line.append(piece);
      }
      rest_.remove_prefix(piece.size());
      if (newline != std::string_view::npos) break;
    }
    if (++number_ == 1 && line.starts_with("\xEF\xBB\xBF")) line.erase(0, 3);
    return any;
  }
  int64_t number() const { return number_; }  ///< of the line given last, from 1

 private:
  Chunks chunks_;
  std::string_view rest_;
  int64_t number_ = 0;
};

bool is_blank(std::string_view line) {
  return line.find_first_not_of(" \t\r\n\v\f") == std::string_view::npos;
}

class Walk {
 public:
  Walk(const std::string& json_key, SplitText split,
       const std::function<void(std::string_view)>& each)
      : json_key_(json_key), split_(split), each_(each) {}

  void path(const std::string& path, int depth = 0) {
    if (!is_directory(path)) return file(path);
    if (depth == kMaxDepth) throw bad_file(path, "folders nested more than 64 deep");
    for (const auto& name : list_directory(path)) {
      if (!name.starts_with('.')) this->path(join_path(path, name), depth + 1);
    }
  }

  DocumentCounts counts;

 private:
  void file(const std::string& path) {
    if (ends_with(path, ".gz")) {
      throw bad_file(path, "gzip is not read; unpack it or pack it with zstd");
    }
    ++counts.files;
    if (ends_with(path, ".jsonl") || ends_with(path, ".jsonl.zst")) return json_lines(path);
    if (split_ == SplitText::kFile) return whole_file(path);
    paragraphs(path);
  }

  void json_lines(const std::string& path) {
    Lines lines(path);
    std::string line;
    bool too_long = false;
    while (lines.next(line, too_long)) {
      if (too_long) {
        bad_line(path, lines.number(), "longer than " + std::to_string(kMaxLineBytes) + " bytes");
        continue;
      }
      if (is_blank(line)) continue;
      try {
        give(text_of(valid(line)));
      } catch (const BadLine& error) {
        bad_line(path, lines.number(), error.what());
      }
    }
  }

  struct BadLine : std::runtime_error {
    using std::runtime_error::runtime_error;
  };

  std::string text_of(const std::string& line) const {
    nlohmann::ordered_json value;
    try {
      value = parse_json(line);
    } catch (const std::runtime_error& error) {
      throw BadLine(error.what());
    }
    if (!value.is_object()) throw BadLine("expected a JSON object");
    const auto found = value.find(json_key_);
    if (found == value.end()) throw BadLine("no key \"" + json_key_ + "\"");
    if (!found->is_string()) throw BadLine("\"" + json_key_ + "\" is not a string");
    return std::move(found->get_ref<std::string&>());
  }

  void bad_line(const std::string& path, int64_t number, const std::string& rule) {
    ++counts.bad_lines;
    if (counts.first_errors.size() < 5) {
      counts.first_errors.push_back(path + ":" + std::to_string(number) + ": " + rule);
    }
  }

  void whole_file(const std::string& path) {
    Lines lines(path);
    std::string text, line;
    bool too_long = false;
    while (lines.next(line, too_long)) {
      grow(text, line, too_long, path);
    }
    give(valid(text));
  }

  void paragraphs(const std::string& path) {
    Lines lines(path);
    std::string text, line;
    bool too_long = false;
    while (lines.next(line, too_long)) {
      if (!is_blank(line)) {
        grow(text, line, too_long, path);
      } else if (!text.empty()) {
        give(valid(text));
        text.clear();
      }
    }
    if (!text.empty()) give(valid(text));
  }

  static void grow(std::string& text, const std::string& line, bool too_long,
                   const std::string& path) {
    if (too_long || text.size() + line.size() > kMaxDocumentBytes) {
      throw bad_file(path, "a line or document of more than " +
                               human_limit(too_long ? kMaxLineBytes : kMaxDocumentBytes) +
                               "; split the file into documents");
    }
    text += line;
  }
  static std::string human_limit(size_t bytes) { return std::to_string(bytes >> 20) + " MiB"; }

  std::string valid(const std::string& text) {
    bool changed = false;
    std::string out = valid_utf8(text, &changed);
    counts.repaired += changed;
    return out;
  }

  void give(const std::string& text) {
    ++counts.documents;
    counts.bytes += static_cast<int64_t>(text.size());
    each_(text);
  }

  const std::string& json_key_;
  SplitText split_;
  const std::function<void(std::string_view)>& each_;
};

}  // namespace

DocumentCounts for_each_document(const std::string& path, const std::string& json_key,
                                 SplitText split,
                                 const std::function<void(std::string_view)>& each) {
  Walk walk(json_key, split, each);
  walk.path(path);
  if (walk.counts.files == 0) throw bad_file(path, "a folder without files");
  return std::move(walk.counts);
}

}  // namespace tandem
