#pragma once
#include <torch/types.h>

#include <limits>
#include <memory>
#include <vector>

#include "nn/language_model.h"
#include "tests/nn/helpers.h"

// Models small enough to check what uses them by hand.

namespace tandem {

/// The recurrence h_t = h_{t-1} / 2 + E[x_t] with logits W h_t, one token after the other in
/// float64: what a row holds depends on its own tokens only, whatever the pieces they come in.
/// Calls are recorded.
class RecurrentModel : public LanguageModel {
 public:
  RecurrentModel(int64_t vocab_size, int64_t d_model, Packing layout = {}) : layout_(layout) {
    embedding_ = declare(*this, "embedding", {vocab_size, d_model}, init_normal(1));
    head_ = declare(*this, "head", {vocab_size, d_model}, init_normal(1));
  }

  struct RecurrentState final : ModelState {
    Tensor h;  // [B, D]
    std::unique_ptr<ModelState> select(const Tensor& rows) const override {
      auto selected = std::make_unique<RecurrentState>();
      selected->h = h.index_select(0, rows);
      selected->lengths = lengths.index_select(0, rows);
      if (next_logits.defined()) selected->next_logits = next_logits.index_select(0, rows);
      return selected;
    }
    std::vector<std::pair<std::string, Tensor>> tensors() const override { return {{"h", h}}; }
  };
  struct Call {
    int64_t n_tokens;
    Want want;
  };
  std::vector<Call> calls;

  std::unique_ptr<ModelState> make_state(const StateShape& shape) const override {
    auto state = std::make_unique<RecurrentState>();
    state->h = torch::zeros({shape.batch, embedding_.size(1)}, shape.dtype);
    state->lengths = torch::zeros({shape.batch}, torch::kInt64);
    return state;
  }
  Tensor extend(const Tensor& tokens, const Tensor& lengths, ModelState& state,
                Want want) override {
    calls.push_back({tokens.size(1), want});
    const Tensor valid =
        lengths.defined() ? lengths : torch::full({tokens.size(0)}, tokens.size(1), torch::kInt64);
    if (want == Want::kLast)
      TORCH_CHECK(valid.min().item<int64_t>() >= 1, "kLast with an empty row");
    Tensor& held = static_cast<RecurrentState&>(state).h;  // may be narrower than the model
    Tensor h = held.to(embedding_.scalar_type());
    const Tensor logits = run(tokens, valid, h);
    held = h.to(held.scalar_type());
    state.lengths += valid;
    if (want == Want::kNothing) return {};
    if (want == Want::kAll) return logits;
    const Tensor last = (valid - 1).view({-1, 1, 1}).expand({-1, 1, logits.size(2)});
    state.next_logits = logits.gather(1, last).squeeze(1);
    return state.next_logits;
  }
  Tensor extend_nll(const Tensor& tokens, const Tensor& targets, const Tensor& lengths,
                    ModelState& state) override {
    return nll(extend(tokens, lengths, state, Want::kAll), targets);
  }
  Loss loss(const Batch& batch, const ForwardContext&) override {
    Tensor h = torch::zeros({batch.tokens.size(0), embedding_.size(1)}, embedding_.options());
    const Tensor all = torch::full({batch.tokens.size(0)}, batch.tokens.size(1), torch::kInt64);
    const Tensor of_tokens = nll(run(batch.tokens, all, h), batch.targets);
    return {of_tokens.nansum(), of_tokens.detach()};
  }
  Packing packing() const override { return layout_; }
  int64_t vocab_size() const override { return head_.size(0); }
  int64_t n_layers() const override { return 1; }
  Flops flops(Phase, int64_t, int64_t) const override { return {}; }
  StateBytes state_bytes(int64_t, torch::Dtype dtype) const override {
    return {{{"h", embedding_.size(1) * static_cast<int64_t>(torch::elementSize(dtype))}}};
  }

 private:
  Tensor run(const Tensor& tokens, const Tensor& lengths, Tensor& h) const {
    Tensors logits;
    for (int64_t t = 0; t < tokens.size(1); ++t) {
      const Tensor next = h / 2 + embedding_.index_select(0, tokens.select(1, t));
      h = torch::where((lengths > t).unsqueeze(1), next, h);
      logits.push_back(at::linear(h, head_));
    }
    return torch::stack(logits, 1);  // [B, T, V]
  }
  static Tensor nll(const Tensor& logits, const Tensor& targets) {
    const Tensor picked =
        logits.log_softmax(2).gather(2, targets.clamp_min(0).unsqueeze(2)).squeeze(2);
    return (-picked).masked_fill(targets == kIgnored, std::numeric_limits<double>::quiet_NaN());
  }

  Packing layout_;
  Tensor embedding_, head_;
};

inline std::shared_ptr<RecurrentModel> make_recurrent_model(int64_t vocab_size = 23,
                                                            Packing layout = {}) {
  auto model = std::make_shared<RecurrentModel>(vocab_size, 7, layout);
  materialise_random(*model, 3);
  return model;
}

}  // namespace tandem
