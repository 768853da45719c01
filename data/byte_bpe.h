#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace tandem {

/// Byte-pair encoding of one pre-token at a time: begin with its bytes, and merge the adjacent pair of lowest rank, the leftmost of equals, until no pair merges.
class ByteBpe {
 public:
  struct Merge {
    int32_t left, right, result;  // ids
  };
  /// `tokens`: the bytes of each id, empty for ids that text never becomes; `merges` in the order of their rank. `whole_first`: a pre-token that is itself a token becomes it
  /// without merging (`ignore_merges` of Hugging Face). Throws std::runtime_error, with the reason, where a byte has no token, two ids have the same bytes, or a merge's result is not its two sides.
  ByteBpe(std::vector<std::string> tokens, const std::vector<Merge>& merges, bool whole_first);
  /// tiktoken's rule: a pre-token that is a token becomes it; else the adjacent pair whose bytes together are the token of lowest id merges.
  static ByteBpe from_ranks(std::vector<std::string> tokens);
  ByteBpe(ByteBpe&&) noexcept;
  ByteBpe& operator=(ByteBpe&&) noexcept;
  ~ByteBpe();

  /// Appends the ids of `pretoken` (any bytes, not empty). Time is n log n in its length. Safe to call from several threads.
  void append(std::string_view pretoken, std::vector<int32_t>& ids) const;
  /// Bytes of `id`; empty for one that text never becomes.
  std::string_view bytes(int32_t id) const;
  int64_t size() const;  ///< ids known, the empty ones included

 private:
  struct Tables;
  explicit ByteBpe(std::unique_ptr<Tables> tables);
  std::unique_ptr<Tables> tables_;
};

}  // namespace tandem
