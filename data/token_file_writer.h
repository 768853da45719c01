#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/file.h"
#include "data/token_index.h"

namespace tandem {

/// Writes an indexed dataset through PREFIX.bin.partial and PREFIX.lengths.partial, in memory that does not grow; nothing appears under the final names before publish(). What was
/// written up to a commit() survives a kill. An error while writing leaves a writer that can only be destroyed.
class TokenFileWriter {
 public:
  /// What a commit promises to be on disk, and where a writer can go on.
  struct Place {
    int64_t documents = 0, tokens = 0, empty = 0;
  };
  /// uint16 when vocab_size < 65500, else int32 (Megatron's rule).
  TokenFileWriter(const std::string& prefix, int64_t vocab_size);
  /// Goes on behind what a writer that was killed had committed; what it wrote after that is cut off, and what it had published already becomes partial again. Throws bad_file where
  /// the partial files hold less.
  TokenFileWriter(const std::string& prefix, int64_t vocab_size, const Place& committed);
  ~TokenFileWriter();  ///< removes the .partial files, but for keep()
  TokenFileWriter(const TokenFileWriter&) = delete;
  /// Empty documents are skipped and counted. Throws std::logic_error for ids outside the vocabulary, cannot_write for more than 2^31 - 1 tokens; then nothing of it was added.
  void add_document(std::span<const int32_t> tokens);
  Place commit();                ///< all that was added is on disk
  void keep(bool stays = true) { keep_ = stays; }  ///< the partial files stay for a later writer; a later publish() takes that back
  /// Writes .idx.partial; after it, and before publish(), nothing may be added. Two files can thus be made ready before either appears.
  void finish();
  /// Renames; finish() first where it was not called. An older index never meets the new tokens. PREFIX.lengths.partial stays until the destructor: with it a job that is killed after this,
  /// or fails and calls keep(), can still go on from its last commit.
  void publish();
  int64_t documents() const { return place_.documents; }
  int64_t tokens() const { return place_.tokens; }
  int64_t skipped_empty() const { return place_.empty; }
  const std::string& prefix() const { return prefix_; }

 private:
  struct Partials {
    File bin, lengths;  // lengths: i32[documents]
  };
  static Partials create_partials(const std::string& prefix);
  static Partials reopen_partials(const std::string& prefix, const TokenDtype& dtype, const Place& committed);
  void flush();
  void write_index();
  std::string prefix_;
  int64_t vocab_size_;
  const TokenDtype& dtype_;
  Place place_;
  Partials partials_;
  std::vector<std::byte> bin_buffer_, lengths_buffer_;
  bool finished_ = false, published_ = false, keep_ = false;
};

}  // namespace tandem
