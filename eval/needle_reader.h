#pragma once
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "data/tokenizer.h"
#include "nn/language_model.h"

// Reads long prompts through a model and asks what follows them. Every prompt is fed in pieces that
// begin at multiples of `chunk`, so that what a model holds at such a place is the same, bit for
// bit, whether it was computed for this prompt or for another one that begins alike.

namespace tandem {

/// A prompt and what may follow it: the answer, then decoys; each has at least one token.
struct NeedleQuestion {
  std::vector<int64_t> prompt;
  std::vector<std::vector<int64_t>> candidates;
};

/// What a model said to one.
struct NeedleReading {
  std::vector<int64_t> ids;       // drawn greedily; ends with the stop id, if there was one
  std::vector<double> log_probs;  // of each candidate, given the prompt
  double first_token_rank = 1;    // of the answer's first token; equal ones share their places
};

struct NeedleReaderConfig {
  int64_t chunk = 4096;  // prompt tokens of a row in one call
  int64_t rows = 8;      // prompts read together, fewer where their states do not fit
  int64_t capacity = 0;  // tokens of a prompt and what follows it
  int64_t memory_bytes = int64_t{4} << 30;  // of states, of which half is for candidates
  int64_t max_new_tokens = 20;
  std::vector<int64_t> stop_ids = {}, forbidden = {};
  std::optional<torch::Dtype> cache_dtype = {};
};

class NeedleReader {
 public:
  /// `model` must outlive it.
  NeedleReader(LanguageModel& model, const NeedleReaderConfig& config);
  /// In order. What prompts of one call have in common is read once, and its state cloned for each.
  /// `next` are the questions of the coming call, one for each of these, or none: the state of what
  /// both begin with, prompt by prompt, is kept for it as far as memory allows. Neither changes
  /// what is read.
  /// Candidates go on from a clone of their prompt's state, as generation does: a model that pads
  /// documents sees padding in front of the prompt that ends it with a block, other than in
  /// log_probs() of nn/score.h.
  std::vector<NeedleReading> read(std::span<const NeedleQuestion> questions,
                                  std::span<const NeedleQuestion> next = {});
  int64_t tokens_fed() const { return tokens_fed_; }        ///< of prompts, in all calls so far
  int64_t peak_state_bytes() const { return peak_bytes_; }  ///< most that states held at once

 private:
  using Ids = std::vector<int64_t>;
  /// State of what several prompts begin with. One row where it is the same for all.
  struct Kept {
    std::vector<Ids> begins;
    std::unique_ptr<ModelState> state;
    int64_t rows = 0;
    int64_t length() const { return static_cast<int64_t>(begins.front().size()); }
  };
  std::vector<Ids> padded(std::span<const NeedleQuestion> questions) const;
  std::unique_ptr<ModelState> prefill(size_t group, std::span<const Ids> prompts,
                                      std::span<const Ids> next);
  std::unique_ptr<ModelState> take_kept(size_t group, std::span<const Ids> prompts, int64_t common,
                                        int64_t inner, int64_t keep, int64_t* from);
  void feed(ModelState& state, std::span<const Ids> prompts, int64_t begin, int64_t end, Want want);
  std::unique_ptr<ModelState> repeated(const ModelState& state, int64_t row, int64_t n) const;
  void score(const ModelState& state, int64_t row, const NeedleQuestion& question,
             NeedleReading& reading);
  void generate(ModelState& state, std::span<NeedleReading> readings);
  bool may_keep(int64_t rows) const;
  void note_bytes(int64_t in_use);

  LanguageModel& model_;
  NeedleReaderConfig config_;
  torch::Device device_;
  int64_t row_bytes_ = 1;                  // of a state at capacity
  int64_t rows_ = 1, candidate_rows_ = 1;  // that fit
  std::map<size_t, Kept> kept_;            // by the first question of a group
  int64_t tokens_fed_ = 0, peak_bytes_ = 0;
};

/// Ids of `text` behind `prompt`, as encoding both together gives them where the prompt's own
/// tokens stay what they are. Where they would not ("is " and "417" become " 417" in some
/// vocabularies), the ids of `text` alone, without a first token of nothing but white space.
std::vector<int64_t> ids_behind(const std::string& prompt, const std::string& text,
                                const Tokenizer& tokenizer);

}  // namespace tandem
