#pragma once
#include <memory>
#include <utility>
#include <vector>

#include "nn/linear.h"
#include "nn/token_mixer.h"

namespace tandem {

struct ToyMixerState : MixerState {
  Tensor sum;  // [B, D]
  std::unique_ptr<MixerState> select(const Tensor& rows) const override {
    auto selected = std::make_unique<ToyMixerState>();
    selected->sum = sum.index_select(0, rows);
    return selected;
  }
  std::vector<std::pair<std::string, Tensor>> tensors() const override { return {{"sum", sum}}; }
};

/// The simplest token mixer there is: a linear map of the sum of all inputs so far.
class ToyMixer : public TokenMixer {
 public:
  explicit ToyMixer(int64_t d_model) : d_model_(d_model) {
    proj_ = register_module("proj", Linear(d_model, d_model, init_normal(0.1)));
  }
  Tensor forward(const Tensor& x, const ForwardContext& context, MixerState* state) override {
    auto valid = x;
    if (context.lengths.defined()) {
      const auto columns = torch::arange(x.size(1));
      valid = x * (columns < context.lengths.unsqueeze(1)).unsqueeze(2);
    }
    auto sums = valid.cumsum(1);
    if (state != nullptr) {
      auto& own = dynamic_cast<ToyMixerState&>(*state);
      sums = sums + own.sum.unsqueeze(1);
      own.sum = sums.select(1, x.size(1) - 1);
    }
    return proj_->forward(sums);
  }
  std::unique_ptr<MixerState> make_state(const StateShape& shape) const override {
    auto state = std::make_unique<ToyMixerState>();
    state->sum = torch::zeros({shape.batch, d_model_}, shape.dtype);
    return state;
  }
  double forward_flops(Phase phase, int64_t length, int64_t batch) const override {
    const auto n_tokens = static_cast<double>(phase == Phase::kDecode ? batch : length * batch);
    return 2.0 * static_cast<double>(d_model_ * d_model_) * n_tokens;
  }
  int64_t state_bytes(int64_t, torch::Dtype dtype) const override {
    return d_model_ * static_cast<int64_t>(torch::elementSize(dtype));
  }

 private:
  int64_t d_model_;
  Linear proj_{nullptr};
};

}  // namespace tandem
