#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/token_file.h"

namespace tandem {

inline constexpr int64_t kMostUpsampling = 1000;

/// Which documents of a source make an epoch, and how often.
struct ViewSpec {
  int64_t min_length = 0;      // documents with fewer tokens are left out
  int64_t max_length = 0;      // documents with more are left out; 0 = none
  int64_t upsample_from = 0;   // documents of at least so many tokens ...
  int64_t upsample_times = 1;  // ... come so often in an epoch, at most kMostUpsampling (YOCO, length extension)
};

/// The documents of one epoch in file order: one pass over all that are chosen, then further passes over the upsampled ones, so that copies lie far apart.
class DocumentView {
 public:
  /// Throws bad_file when fewer than two tokens are left, naming the filters that left the others out.
  explicit DocumentView(std::shared_ptr<const TokenFile> file, const ViewSpec& spec = {});
  const TokenFile& file() const { return *file_; }
  bool whole() const { return whole_; }  ///< every document of the file once
  int64_t documents() const;
  int64_t tokens() const { return tokens_; }
  int64_t in_file(int64_t i) const;  ///< the file's number of document i
  int64_t copy(int64_t i) const;     ///< how many times it came before in the epoch
  int64_t length(int64_t i) const { return file_->document_length(in_file(i)); }
  struct Dropped {
    int64_t documents = 0, tokens = 0;
  };
  Dropped dropped() const;
  /// A phrase for each filter that left documents out: "12 documents (3,400 tokens) shorter than 65,536".
  std::vector<std::string> left_out() const;
  int64_t upsampled() const { return static_cast<int64_t>(more_.size()); }  ///< documents that come more than once

 private:
  void choose();
  std::shared_ptr<const TokenFile> file_;
  ViewSpec spec_;
  bool whole_ = true;                 // then there is no table
  std::vector<int64_t> once_, more_;  // the file's numbers: of the first pass, and of each further one
  int64_t tokens_ = 0;
  Dropped shorter_, longer_;
};

/// Why a file whose format takes `eos_id` is one document that nothing ended: "a.bin has no eos_id", "a.bin holds no token 7"; empty for others.
std::string why_one_document(const TokenFile& file, std::optional<int64_t> eos_id);

}  // namespace tandem
