#pragma once
#include <torch/types.h>

#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "nn/language_model.h"
#include "tests/nn/helpers.h"

namespace tandem {

/// Over the byte tokenizer: really looks for the sentence that its text's last one begins like, and
/// goes on as that did; says the text is over where there is none. `knows_nothing`: every token is
/// as likely.
class LookingModel : public LanguageModel {
 public:
  static constexpr int64_t kVocabulary = 258, kEos = 257;
  explicit LookingModel(bool knows_nothing, Packing packing = {})
      : knows_nothing_(knows_nothing), packing_(packing) {
    declare(*this, "unused", {1, 1}, init_normal(1));
  }

  int64_t n_calls = 0;  // of extend

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
        const auto id = tokens[b][t].item<int64_t>();
        if (id < 256) text += static_cast<char>(id);
        if (want == Want::kAll) predict(text, logits[b][t]);
      }
      if (want == Want::kLast) predict(text, last[b]);
      own.lengths[b] += n;
    }
    if (want == Want::kNothing) return {};
    if (want == Want::kAll) return logits;
    own.next_logits = last;
    return last;
  }
  Tensor extend_nll(const Tensor& tokens, const Tensor& targets, const Tensor& lengths,
                    ModelState& state) override {
    const Tensor log_p = extend(tokens, lengths, state, Want::kAll).log_softmax(2);
    const Tensor picked = log_p.gather(2, targets.clamp_min(0).unsqueeze(2)).squeeze(2);
    return (-picked).masked_fill(targets == kIgnored, std::numeric_limits<double>::quiet_NaN());
  }
  Loss loss(const Batch&, const ForwardContext&) override { return {}; }
  Packing packing() const override { return packing_; }
  int64_t vocab_size() const override { return kVocabulary; }
  int64_t n_layers() const override { return 1; }
  Flops flops(Phase, int64_t, int64_t) const override { return {}; }
  StateBytes state_bytes(int64_t, torch::Dtype) const override { return {}; }

 private:
  void predict(const std::string& text, Tensor logits) const {
    if (knows_nothing_) return;
    const size_t begin = text.rfind("special magic ");
    const std::string key = begin == std::string::npos ? text : text.substr(begin);
    const size_t found = text.find(key);  // the last one at the latest
    const size_t behind = found + key.size();
    const int64_t next =
        behind < text.size() ? static_cast<unsigned char>(text[behind]) : int64_t{kEos};
    logits[next] = 10;
  }
  bool knows_nothing_;
  Packing packing_;
};

inline std::shared_ptr<LookingModel> make_looking_model(bool knows_nothing = false,
                                                        Packing packing = {}) {
  auto model = std::make_shared<LookingModel>(knows_nothing, packing);
  materialise_random(*model, 1);
  return model;
}

}  // namespace tandem
