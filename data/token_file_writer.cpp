#include "data/token_file_writer.h"

#include <algorithm>
#include <cstring>
#include <exception>
#include <functional>
#include <limits>
#include <stdexcept>
#include <utility>

#include "core/error.h"
#include "data/raw_values.h"

namespace tandem {
namespace {

constexpr size_t kBufferBytes = size_t{1} << 20;
constexpr int64_t kLengthBytes = 4;

std::string text(int64_t value) { return std::to_string(value); }
std::string bin_partial(const std::string& prefix) { return prefix + ".bin.partial"; }
std::string lengths_partial(const std::string& prefix) { return prefix + ".lengths.partial"; }
std::string idx_partial(const std::string& prefix) { return prefix + ".idx.partial"; }

const TokenDtype& dtype_for(int64_t vocab_size) {
  return *find_token_dtype(vocab_size < 65500 ? "uint16" : "int32");
}

void try_to_remove(const std::string& path) {
  try {
    remove_tree(path);
  } catch (const std::exception&) {  // it costs space only, and the next writer of it begins anew
  }
}

/// Cuts off what lies behind the first `bytes`.
File reopen(const std::string& path, int64_t bytes) {
  const uint64_t size = File::open_read(path).size(), committed = static_cast<uint64_t>(bytes);
  if (size < committed) {
    throw bad_file(path,
                   "has " + std::to_string(size) + " bytes, " + text(bytes) + " were committed");
  }
  File file = File::open_append(path);
  if (size > committed) file.truncate(committed);
  return file;
}

/// A writer that was killed in publish() or soon after: its tokens have their final name already.
/// The index goes first, so that it never lies beside other tokens than its own.
void take_back(const std::string& prefix) {
  const bool published =
      !exists(bin_partial(prefix)) && exists(lengths_partial(prefix)) && exists(prefix + ".bin");
  if (!published) return;
  remove_tree(prefix + ".idx");
  sync_directory(parent_of(prefix));
  rename_file(prefix + ".bin", bin_partial(prefix));
}

template <typename T>
void append_as(std::vector<std::byte>& buffer, std::span<const int32_t> tokens) {
  const size_t at = buffer.size();
  buffer.resize(at + tokens.size() * sizeof(T));
  for (size_t i = 0; i < tokens.size(); ++i) {
    const T token = static_cast<T>(tokens[i]);
    std::memcpy(buffer.data() + at + i * sizeof(T), &token, sizeof(T));
  }
}

void expect_size(const File& file, int64_t bytes) {
  if (file.size() == static_cast<uint64_t>(bytes)) return;
  throw cannot_write(file.path(), "holds " + std::to_string(file.size()) + " bytes, " +
                                      text(bytes) + " were written");
}

/// Puts numbers into a file by way of a buffer.
class NumberWriter {
 public:
  explicit NumberWriter(File& file) : file_(file) {}
  template <typename T>
  void put(T value) {
    append_raw(buffer_, value);
    if (buffer_.size() >= kBufferBytes) flush();
  }
  void flush() {
    file_.write(buffer_);
    buffer_.clear();
  }

 private:
  File& file_;
  std::vector<std::byte> buffer_;
};

/// Calls `each` with every int32 of a file.
void for_each_length(const std::string& path, int64_t count,
                     const std::function<void(int32_t)>& each) {
  const File file = File::open_read(path);
  std::vector<std::byte> buffer;
  for (int64_t done = 0; done < count;) {
    const int64_t n = std::min(count - done, static_cast<int64_t>(kBufferBytes) / kLengthBytes);
    buffer.resize(static_cast<size_t>(n * kLengthBytes));
    file.read_at(static_cast<uint64_t>(done * kLengthBytes), buffer);
    for (int64_t i = 0; i < n; ++i) {
      each(raw_value<int32_t>(buffer, static_cast<uint64_t>(i * kLengthBytes)));
    }
    done += n;
  }
}

}  // namespace

TokenFileWriter::Partials TokenFileWriter::create_partials(const std::string& prefix) {
  make_directories(parent_of(prefix));
  File bin = File::create(bin_partial(prefix));
  try {
    return {std::move(bin), File::create(lengths_partial(prefix))};
  } catch (...) {
    try_to_remove(bin_partial(prefix));
    throw;
  }
}

TokenFileWriter::Partials TokenFileWriter::reopen_partials(const std::string& prefix,
                                                           const TokenDtype& dtype,
                                                           const Place& committed) {
  take_back(prefix);
  File bin = reopen(bin_partial(prefix), committed.tokens * dtype.bytes);
  return {std::move(bin), reopen(lengths_partial(prefix), committed.documents * kLengthBytes)};
}

TokenFileWriter::TokenFileWriter(const std::string& prefix, int64_t vocab_size)
    : prefix_(token_prefix(prefix)),
      vocab_size_(vocab_size),
      dtype_(dtype_for(vocab_size)),
      partials_(create_partials(prefix_)) {}

TokenFileWriter::TokenFileWriter(const std::string& prefix, int64_t vocab_size,
                                 const Place& committed)
    : prefix_(token_prefix(prefix)),
      vocab_size_(vocab_size),
      dtype_(dtype_for(vocab_size)),
      place_(committed),
      partials_(reopen_partials(prefix_, dtype_, committed)) {}

TokenFileWriter::~TokenFileWriter() {
  if (keep_) return;
  // The lengths first: beside them alone, older tokens would look as if they were to be taken back.
  try_to_remove(lengths_partial(prefix_));
  try_to_remove(bin_partial(prefix_));
  try_to_remove(idx_partial(prefix_));
}

void TokenFileWriter::add_document(std::span<const int32_t> tokens) {
  if (finished_) throw std::logic_error("TokenFileWriter: a document after finish()");
  if (tokens.empty()) {
    ++place_.empty;
    return;
  }
  if (tokens.size() > static_cast<size_t>(std::numeric_limits<int32_t>::max())) {
    throw cannot_write(partials_.bin.path(), "a document of " + std::to_string(tokens.size()) +
                                                 " tokens; the format holds up to 2147483647");
  }
  for (const int32_t token : tokens) {
    if (token < 0 || token >= vocab_size_) {
      throw std::logic_error("TokenFileWriter: token " + text(token) + ", expected 0 to " +
                             text(vocab_size_ - 1));
    }
  }
  constexpr size_t kPiece = kBufferBytes / sizeof(int32_t);
  for (auto rest = tokens; !rest.empty(); rest = rest.subspan(std::min(rest.size(), kPiece))) {
    const auto piece = rest.first(std::min(rest.size(), kPiece));
    if (dtype_.bytes == 2) {
      append_as<uint16_t>(bin_buffer_, piece);
    } else {
      append_as<int32_t>(bin_buffer_, piece);
    }
    if (bin_buffer_.size() < kBufferBytes) continue;
    partials_.bin.write(bin_buffer_);
    bin_buffer_.clear();
  }
  append_raw(lengths_buffer_, static_cast<int32_t>(tokens.size()));
  ++place_.documents;
  place_.tokens += static_cast<int64_t>(tokens.size());
  if (lengths_buffer_.size() >= kBufferBytes) flush();
}

void TokenFileWriter::flush() {
  partials_.bin.write(bin_buffer_);
  bin_buffer_.clear();
  partials_.lengths.write(lengths_buffer_);
  lengths_buffer_.clear();
  // Not so after a write that failed in the middle: an index would then promise other tokens.
  expect_size(partials_.bin, place_.tokens * dtype_.bytes);
  expect_size(partials_.lengths, place_.documents * kLengthBytes);
}

TokenFileWriter::Place TokenFileWriter::commit() {
  if (finished_) throw std::logic_error("TokenFileWriter: commit() after finish()");
  flush();
  partials_.bin.sync();
  partials_.lengths.sync();
  sync_directory(parent_of(prefix_));
  return place_;
}

void TokenFileWriter::finish() {
  if (finished_) return;
  flush();
  partials_.bin.sync();
  partials_.bin.close();
  partials_.lengths.close();
  write_index();
  finished_ = true;
}

void TokenFileWriter::write_index() {
  File idx = File::create(idx_partial(prefix_));
  idx.write(token_index_header(dtype_, place_.documents));
  NumberWriter numbers(idx);
  int64_t tokens = 0;
  for_each_length(partials_.lengths.path(), place_.documents, [&](int32_t length) {
    numbers.put(length);
    tokens += length;
  });
  if (tokens != place_.tokens) {
    throw bad_file(partials_.lengths.path(), "its documents have " + text(tokens) + " tokens, " +
                                                 text(place_.tokens) + " were written");
  }
  int64_t offset = 0;
  for_each_length(partials_.lengths.path(), place_.documents, [&](int32_t length) {
    numbers.put(offset);
    offset += length * dtype_.bytes;
  });
  for (int64_t d = 0; d <= place_.documents; ++d) numbers.put(d);
  numbers.flush();
  idx.sync();
  idx.close();
}

void TokenFileWriter::publish() {
  finish();
  if (published_) return;
  // Each step is on disk before the next: a loss of power leaves no index beside other tokens than
  // its own.
  const std::string folder = parent_of(prefix_);
  if (exists(prefix_ + ".idx")) {
    remove_tree(prefix_ + ".idx");
    sync_directory(folder);
  }
  rename_file(bin_partial(prefix_), prefix_ + ".bin");
  sync_directory(folder);
  rename_file(idx_partial(prefix_), prefix_ + ".idx");
  sync_directory(folder);
  published_ = true;
  keep_ = false;
}

}  // namespace tandem
