#pragma once
#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "eval/haystack.h"
#include "eval/needle_protocols.h"

namespace tandem {

/// The lines of a plan as sentences without end.
class LineSource final : public SentenceSource {
 public:
  LineSource(const NeedlePlan& plan, const Tokenizer& tokenizer, RandomStream stream)
      : plan_(plan), tokenizer_(tokenizer), draws_(stream) {}
  Sentence next() override;
  const std::string& value(size_t line) const { return values_[line]; }

 private:
  const NeedlePlan& plan_;
  const Tokenizer& tokenizer_;
  Draws draws_;
  std::deque<std::string> lines_;  // texts stay where they are
  std::vector<std::string> values_;
};

/// The text between instruction and question: sentences up to a number of tokens, needles among
/// them.
class NeedleContext {
 public:
  NeedleContext(const NeedleTask& task, const NeedlePlan& plan, SentenceSource& source,
                const Tokenizer& tokenizer)
      : task_(task), plan_(plan), source_(source), tokenizer_(tokenizer) {}
  /// As many sentences, or lines where needles stand at those, as take at most so many tokens by
  /// their counts. May be called again with more or less.
  void fill(int64_t tokens);
  size_t sentences() const { return n_; }
  int64_t tokens() const { return ends_[n_]; }
  /// Tokens of the sentence that did not fit.
  int64_t next_tokens() const { return ends_[n_ + 1] - ends_[n_]; }

  struct Planted {
    std::string text;
    double depth = 0;  // of the first needle asked for: share of the filler's tokens in front of it
  };
  /// `leave_out_asked`: the control.
  Planted plant(bool leave_out_asked) const;

 private:
  struct Place {
    size_t sentence = 0;
    size_t byte = 0;     // within it
    int64_t tokens = 0;  // in front
    bool operator<(const Place& o) const {
      return sentence != o.sentence ? sentence < o.sentence : byte < o.byte;
    }
  };
  Place place_of(const Needle& needle) const;
  const NeedleTask& task_;
  const NeedlePlan& plan_;
  SentenceSource& source_;
  const Tokenizer& tokenizer_;
  std::vector<Sentence> all_;        // taken from the source
  std::vector<int64_t> ends_ = {0};  // tokens of the first so many
  size_t n_ = 0;                     // in use
};

}  // namespace tandem
