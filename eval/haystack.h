#pragma once
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/random.h"
#include "data/tokenizer.h"

namespace tandem {

/// "The grass is green. The sky is blue. ...", RULER's noise.
inline constexpr std::string_view kNoiseLine =
    "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.";

/// Text cut behind its sentences, each beginning with the white space in front of it, so that all
/// of them together are the text. A paragraph ends a sentence too; one longer than `longest` bytes
/// is cut at a space, or where there is none, anywhere between two characters.
std::vector<std::string_view> cut_sentences(std::string_view text, size_t longest = 1000);

/// A sentence of a haystack and the tokens it takes within its document.
struct Sentence {
  std::string_view text;
  int64_t tokens = 0;
};

/// The documents that hide a needle. Their tokens are counted when they are first asked for, once
/// for all samples.
class Haystack {
 public:
  Haystack(std::vector<std::string> documents, std::string content_hash);
  int64_t documents() const { return static_cast<int64_t>(documents_.size()); }
  /// Of one document, which begins with a newline. Safe from several threads.
  std::span<const Sentence> sentences(int64_t document, const Tokenizer& tokenizer) const;
  const std::string& content_hash() const { return content_hash_; }  ///< SHA-256, 64 hex digits

 private:
  std::vector<std::string> documents_;
  std::string content_hash_;
  mutable std::mutex mutex_;
  mutable std::vector<std::vector<Sentence>> sentences_;
};

/// What a haystack is made of is cut off behind so much, at the end of a document.
inline constexpr int64_t kMostHaystackBytes = int64_t{1} << 28;
inline constexpr int64_t kMostHaystackTokens = int64_t{1} << 26;

/// "noise"; a file or folder of text (data/documents.h); or the prefix of a token file, which
/// `tokenizer` decodes. Kept in the process by content, so that tokens are counted once. Throws
/// bad_file where there is no text, and bad_usage for tokens that another tokenizer made.
std::shared_ptr<const Haystack> load_haystack(const std::string& name, const Tokenizer& tokenizer);
/// What content_hash() would be, without taking tokens apart.
std::string haystack_hash(const std::string& name, const Tokenizer& tokenizer);

/// Sentences without end.
class SentenceSource {
 public:
  virtual ~SentenceSource() = default;
  virtual Sentence next() = 0;  ///< its text stays where it is as long as the source
};

/// A haystack's documents in an order of the stream's own, beginning at a random sentence of the
/// first and again with the first when all were given. Noise begins with the grass.
class HaystackSource final : public SentenceSource {
 public:
  HaystackSource(std::shared_ptr<const Haystack> haystack, const Tokenizer& tokenizer,
                 RandomStream stream);
  Sentence next() override;

 private:
  std::shared_ptr<const Haystack> haystack_;
  const Tokenizer& tokenizer_;
  Permutation order_;
  int64_t document_ = 0;  // place in the order
  size_t sentence_ = 0;
};

}  // namespace tandem
