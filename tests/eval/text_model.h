#pragma once
#include <torch/types.h>

#include <cmath>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "nn/language_model.h"
#include "tests/nn/helpers.h"

namespace tandem {

/// Over the byte tokenizer (BOS 256, EOS 257): what follows is a function of the text so far, which
/// is all that its state holds.
class TextModel : public LanguageModel {
 public:
  static constexpr int64_t kVocabulary = 258, kEos = 257;

  int64_t n_calls = 0;  // of extend, whoever calls it

  std::unique_ptr<ModelState> make_state(const StateShape& shape) const override {
    auto state = std::make_unique<TextState>();
    state->rows.resize(static_cast<size_t>(shape.batch));
    state->lengths = torch::zeros({shape.batch}, torch::kInt64);
    return state;
  }
  Tensor extend(const Tensor& tokens, const Tensor& lengths, ModelState& state,
                Want want) override {
    ++n_calls;
    auto& own = static_cast<TextState&>(state);
    const int64_t batch = tokens.size(0), n_tokens = tokens.size(1);
    const Tensor logits = torch::zeros({batch, n_tokens, kVocabulary}, torch::kFloat64),
                 last = torch::zeros({batch, kVocabulary}, torch::kFloat64);
    for (int64_t b = 0; b < batch; ++b) {
      const int64_t n = lengths.defined() ? lengths[b].item<int64_t>() : n_tokens;
      std::string& text = own.rows[static_cast<size_t>(b)];
      for (int64_t t = 0; t < n; ++t) {
        add(text, tokens[b][t]);
        if (want == Want::kAll) logits[b][t].copy_(predict(text));
      }
      if (want == Want::kLast) last[b].copy_(predict(text));
      own.lengths[b] += n;
    }
    if (want == Want::kNothing) return {};
    if (want == Want::kAll) return logits;
    return own.next_logits = last;
  }
  Tensor extend_nll(const Tensor& tokens, const Tensor& targets, const Tensor& lengths,
                    ModelState& state) override {
    return nll_of(extend(tokens, lengths, state, Want::kAll), targets);
  }
  Loss loss(const Batch& batch, const ForwardContext&) override {
    const Tensor nll = extend_nll(batch.tokens, batch.targets, {},
                                  *make_state({.batch = batch.tokens.size(0)}));
    return {nll.nansum(), nll};
  }
  Packing packing() const override { return {}; }
  int64_t vocab_size() const override { return kVocabulary; }
  int64_t n_layers() const override { return 1; }
  Flops flops(Phase, int64_t, int64_t) const override { return {}; }
  StateBytes state_bytes(int64_t, torch::Dtype) const override { return {}; }

 protected:
  TextModel() { declare(*this, "unused", {1, 1}, init_normal(1)); }
  /// [kVocabulary] float64 logits of what follows `text`.
  virtual Tensor predict(const std::string& text) const = 0;

 private:
  struct TextState final : ModelState {
    std::vector<std::string> rows;
    std::unique_ptr<ModelState> select(const Tensor& chosen) const override {
      auto selected = std::make_unique<TextState>();
      for (int64_t i = 0; i < chosen.size(0); ++i)
        selected->rows.push_back(rows[static_cast<size_t>(chosen[i].item<int64_t>())]);
      selected->lengths = lengths.index_select(0, chosen);
      if (next_logits.defined()) selected->next_logits = next_logits.index_select(0, chosen);
      return selected;
    }
    std::vector<std::pair<std::string, Tensor>> tensors() const override { return {}; }
  };
  static void add(std::string& text, const Tensor& token) {
    const auto id = token.item<int64_t>();
    if (id < 256) text += static_cast<char>(id);
  }
  static Tensor nll_of(const Tensor& logits, const Tensor& targets) {
    const Tensor picked =
        logits.log_softmax(2).gather(2, targets.clamp_min(0).unsqueeze(2)).squeeze(2);
    return (-picked).masked_fill(targets == kIgnored, NAN);
  }
};

}  // namespace tandem
