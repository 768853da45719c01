#pragma once
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "eval/haystack.h"
#include "eval/needle_protocols.h"

namespace tandem {

/// Makes the samples of a set, each from random streams of its own: sample k is the same in a set
/// of any size.
class NeedleSampler {
 public:
  /// Throws bad_usage for a protocol or task that is not known.
  NeedleSampler(const NeedleSetConfig& config, const Tokenizer& tokenizer);
  /// Verified, as needle_set() promises.
  NeedleSample sample(int64_t index) const;

 private:
  struct Draft;
  std::optional<NeedleSample> attempt(const RandomStream& filler,
                                      const RandomStream& needles) const;
  void fit(Draft& draft) const;
  void write(Draft& draft, bool leave_out_asked) const;
  void encode(Draft& draft) const;
  std::vector<std::string> decoys(const Draft& draft, Draws& draws) const;
  NeedleSetConfig config_;
  const NeedleTask& task_;
  const NeedleProtocol& protocol_;
  const Tokenizer& tokenizer_;
  std::shared_ptr<const Haystack> haystack_;  // null where the filler is lines
};

/// For each text the number of the token in which its first occurrence begins, or -1 where the
/// tokens, decoded, do not hold it. Texts of at most 1,024 tokens.
std::vector<int64_t> find_in_tokens(std::span<const int64_t> ids,
                                    std::span<const std::string> texts, const Tokenizer& tokenizer);

}  // namespace tandem
