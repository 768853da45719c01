#pragma once
#include <torch/types.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <vector>

#include "nn/device_sampler.h"
#include "nn/language_model.h"
#include "tests/nn/helpers.h"

namespace tandem {

/// The contract of a model of blocks, in few words: what predicts token j of block n >= 1 is W h,
///   h = sum over the tokens i of blocks m < n of (i + 1) E[x] / 2^(n - m)
///       + sum over the tokens i < j of block n of E[x] / (1 + j - i),
/// in float64. Padding counts as half of token 0 in blocks before and not at all in its own, so
/// that token 0, padding and nothing all differ. Rows are kept as lists of ids, of which each
/// prediction is worked out anew.
class BlockModel : public LanguageModel {
 public:
  using Ids = std::vector<int64_t>;

  BlockModel(int64_t vocab_size, const Packing& packing) : packing_(packing) {
    embedding_ = declare(*this, "embedding", {vocab_size, 7}, init_normal(1));
    head_ = declare(*this, "head", {vocab_size, 7}, init_normal(1));
  }

  /// Logits [V] of what follows `ids`, which fill a block at least.
  Tensor predict(const Ids& ids) const {
    const int64_t length = packing_.multiple, n = std::ssize(ids) / length;
    TORCH_CHECK(n >= 1, "predict: ", ids.size(), " tokens, expected a block of ", length);
    std::vector<double> weights(static_cast<size_t>(vocab_size()));
    for (int64_t t = 0; t < std::ssize(ids); ++t) {
      const int64_t id = ids[static_cast<size_t>(t)];
      double weight = id == kPadding ? 0.5 : 1;
      if (t < n * length)
        weight *= static_cast<double>(t % length + 1) * std::pow(2.0, t / length - n);
      else
        weight *= id == kPadding ? 0 : 1 / static_cast<double>(1 + std::ssize(ids) - t);
      weights[static_cast<size_t>(std::max<int64_t>(id, 0))] += weight;
    }
    const torch::NoGradGuard no_grad;
    return head_.matmul(embedding_.t().matmul(torch::tensor(weights, torch::kFloat64)));
  }
  double log_prob(const Ids& ids, int64_t next) const {
    return predict(ids).log_softmax(0)[next].item<double>();
  }

  struct BlockState final : ModelState {
    StateShape shape;
    std::vector<Ids> rows;
    void push(size_t row, int64_t id) {
      TORCH_CHECK(id != kPadding || rows[row].empty() || rows[row].back() == kPadding,
                  "padding behind a token");
      rows[row].push_back(id);
      TORCH_CHECK(std::ssize(rows[row]) <= shape.capacity, "a row is longer than the capacity");
    }
    std::unique_ptr<ModelState> select(const Tensor&) const override { return nullptr; }
    std::vector<std::pair<std::string, Tensor>> tensors() const override { return {}; }
  };
  int64_t n_calls = 0;  // of extend

  std::unique_ptr<ModelState> make_state(const StateShape& shape) const override {
    auto state = std::make_unique<BlockState>();
    state->shape = shape;
    state->rows.resize(static_cast<size_t>(shape.batch));
    state->lengths = torch::zeros({shape.batch}, torch::kInt64);
    return state;
  }
  Tensor extend(const Tensor& tokens, const Tensor& lengths, ModelState& state,
                Want want) override {
    ++n_calls;
    auto& own = static_cast<BlockState&>(state);
    const int64_t batch = tokens.size(0), n_tokens = tokens.size(1);
    const Tensor logits = torch::full({batch, n_tokens, vocab_size()}, kNan, torch::kFloat64);
    for (int64_t b = 0; b < batch; ++b) {
      const auto row = static_cast<size_t>(b);
      const int64_t n = lengths.defined() ? lengths[b].item<int64_t>() : n_tokens;
      for (int64_t t = 0; t < n; ++t) {
        own.push(row, tokens[b][t].item<int64_t>());
        if (want == Want::kAll && std::ssize(own.rows[row]) >= packing_.multiple)
          logits[b][t].copy_(predict(own.rows[row]));
      }
      own.lengths[b] += n;
    }
    if (want == Want::kNothing) return {};
    if (want == Want::kAll) return logits;
    own.next_logits = predict_each(own);
    return own.next_logits;
  }
  Tensor extend_nll(const Tensor& tokens, const Tensor& targets, const Tensor& lengths,
                    ModelState& state) override {
    const Tensor log_p = extend(tokens, lengths, state, Want::kAll).log_softmax(2);
    const Tensor picked = log_p.gather(2, targets.clamp_min(0).unsqueeze(2)).squeeze(2);
    return (-picked).masked_fill(targets == kIgnored, kNan);
  }
  int64_t tokens_per_call() const override { return packing_.multiple; }
  Tensor generate_block(ModelState& state, DeviceSampler& sampler) override {
    auto& own = static_cast<BlockState&>(state);
    const int64_t length = packing_.multiple;
    std::vector<int64_t> begun;
    for (const Ids& row : own.rows) begun.push_back(std::ssize(row) % length);
    const int64_t first = *std::min_element(begun.begin(), begun.end());
    sampler.skip(first);
    const Tensor ids = torch::full({std::ssize(own.rows), length}, kPadding, torch::kInt64);
    for (int64_t slot = first; slot < length; ++slot) {
      const Tensor drawn = sampler.sample(predict_each(own));
      for (int64_t b = 0; b < std::ssize(own.rows); ++b) {
        if (begun[static_cast<size_t>(b)] > slot) continue;
        own.push(static_cast<size_t>(b), drawn[b].item<int64_t>());
        ids[b][slot] = drawn[b];
        own.lengths[b] += 1;
      }
    }
    own.next_logits = predict_each(own);
    return ids;
  }
  Loss loss(const Batch& batch, const ForwardContext&) override {
    const Tensor nll = torch::full(batch.tokens.sizes(), kNan, torch::kFloat64);
    for (int64_t b = 0; b < nll.size(0); ++b) {
      Ids ids;
      for (int64_t t = 0; t < nll.size(1); ++t) {
        const bool padding = batch.segment.defined() && batch.segment[b][t].item<int32_t>() < 0;
        const int64_t token = batch.tokens[b][t].item<int64_t>(),
                      target = batch.targets[b][t].item<int64_t>();
        TORCH_CHECK(!padding || token == 0, "padding has token ", token, ", expected 0");
        ids.push_back(padding ? kPadding : token);
        if (target != kIgnored && std::ssize(ids) >= packing_.multiple)
          nll[b][t] = -log_prob(ids, target);
      }
    }
    return {nll.nansum(), nll};
  }
  Packing packing() const override { return packing_; }
  int64_t vocab_size() const override { return head_.size(0); }
  int64_t n_layers() const override { return 1; }
  Flops flops(Phase, int64_t, int64_t) const override { return {}; }
  StateBytes state_bytes(int64_t, torch::Dtype) const override { return {}; }

 private:
  static constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  Tensor predict_each(const BlockState& state) const {
    Tensors logits;
    for (const Ids& row : state.rows) logits.push_back(predict(row));
    return torch::stack(logits);  // [B, V]
  }
  Packing packing_;
  Tensor embedding_, head_;
};

inline std::shared_ptr<BlockModel> make_block_model(int64_t block_length, bool pad_documents,
                                                    int64_t max_length = 0,
                                                    int64_t vocab_size = 23) {
  auto model = std::make_shared<BlockModel>(vocab_size, Packing{.multiple = block_length,
                                                                .unscored_prefix = block_length - 1,
                                                                .pad_documents = pad_documents,
                                                                .max_length = max_length});
  materialise_random(*model, 5);
  return model;
}

/// `n` tokens of padding, then `ids`.
inline BlockModel::Ids padded(int64_t n, const BlockModel::Ids& ids) {
  BlockModel::Ids result(static_cast<size_t>(n), kPadding);
  result.insert(result.end(), ids.begin(), ids.end());
  return result;
}

}  // namespace tandem
